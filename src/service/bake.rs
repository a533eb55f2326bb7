//! The signal log of the current bake, and the opening of its judge.

use std::path::PathBuf;

use crate::judge::service_judge::JudgeToOpen;
use crate::machine::{BakeOpening, ServiceMachine};
use crate::model::{CallKey, History, Moment, Observation, ReleaseNumber, Signal, UsualAnswers};
use crate::proxy::Proxy;
use crate::record::{SignalLog, SignalLogHeader, SignalLogWriter};
use crate::service::traffic_window::TrafficWindow;

/// What the answers of the releases of a bake are compared with.
#[derive(Debug)]
pub(super) struct AnswersToCompare {
    releases: [Option<ReleaseNumber>; 2],
    usual: Vec<(CallKey, UsualAnswers)>,
}

impl AnswersToCompare {
    /// From now on the proxy counts answers that are not usual.
    pub(super) fn start(&self, proxy: &Proxy) {
        let releases = self.releases.iter().flatten();
        releases.for_each(|release| proxy.compare_answers(*release, &self.usual));
    }
}

/// The signals of the current bake, on disk.
#[derive(Debug)]
pub(crate) struct BakeLog {
    writer: Option<SignalLogWriter>,
    /// The release on trial of the log.
    release: ReleaseNumber,
    /// The folder of the service.
    dir: PathBuf,
}

impl BakeLog {
    /// A log in the folder of a service. No bake is open.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { writer: None, release: ReleaseNumber(0), dir }
    }

    /// The release on trial, if its log is open and its bake is over.
    pub(super) fn ended(&self, machine: &ServiceMachine) -> Option<ReleaseNumber> {
        let is_over = machine.judge_to_open().map_or(machine.judge().is_none(), |it| it.after_bake);
        (self.writer.is_some() && is_over).then_some(self.release)
    }

    /// Appends a signal, if a bake is open.
    pub(crate) fn append(&mut self, now: Moment, signal: &Signal) {
        self.writer.iter_mut().for_each(|writer| writer.append(now, signal));
    }

    /// Opens the judge that the phase needs, and closes the log of a bake that is over. Returns what the
    /// releases of a bake that opens are compared with.
    pub(super) fn sync(
        &mut self,
        now: Moment,
        service: &str,
        machine: &mut ServiceMachine,
        history: impl FnOnce(ReleaseNumber) -> History,
    ) -> Option<AnswersToCompare> {
        let mut compared = None;
        if let Some(JudgeToOpen { release, warm, after_bake }) = machine.judge_to_open() {
            // After the bake nothing is recorded: a restart begins the watch anew.
            if after_bake {
                self.writer = None;
                // Answers are compared with those of another release.
                let history = History { usual_answers: Vec::new(), ..history(release) };
                let opening = BakeOpening { release, warm, after_bake, opened: now, history };
                machine.open_judge(now, opening, []);
                return None;
            }
            let history = warm.map(history).unwrap_or_default();
            let header = SignalLogHeader { release, warm, opened: now, history };
            let resumed = self.open(service, machine.watch().deploy(), &header);
            let SignalLogHeader { opened, history, .. } =
                resumed.as_ref().map_or(header, |log| log.header.clone());
            let releases = [Some(release), warm];
            compared = Some(AnswersToCompare { releases, usual: history.usual_answers.clone() });
            let opening = BakeOpening { release, warm, after_bake, opened, history };
            let replay = resumed.iter().flat_map(SignalLog::signals);
            machine.open_judge(now, opening, replay);
            if let Some(ramp) = machine.watch().phase().ramp() {
                // The judge knows it; a restart finds it in the log.
                let observation = Observation::Step(ramp.step);
                self.append(now, &Signal { release, observation });
            }
        }
        if machine.judge().is_none() {
            self.writer = None;
        }
        compared
    }

    /// Opens the log of a bake. Returns what a daemon before a restart recorded of the same bake.
    fn open(
        &mut self,
        service: &str,
        deploy: ReleaseNumber,
        header: &SignalLogHeader,
    ) -> Option<SignalLog> {
        let opened =
            tokio::task::block_in_place(|| SignalLogWriter::open(&self.dir, deploy, header));
        match opened {
            Ok((writer, resumed)) => {
                (self.writer, self.release) = (Some(writer), header.release);
                resumed
            }
            Err(error) => {
                tracing::warn!(service, "cannot record the signals of the bake: {error}");
                None
            }
        }
    }
}

/// What a release has done so far: its traffic, and what the proxy counted.
pub(super) fn history(
    window: Option<&TrafficWindow>,
    proxy: &Proxy,
    release: ReleaseNumber,
) -> History {
    History {
        last_hour: window.map(TrafficWindow::baseline).unwrap_or_default(),
        worst_five_minutes: window.map(TrafficWindow::worst_window).unwrap_or_default(),
        calls: proxy.counts_by_call(release).into_iter().collect(),
        usual_answers: proxy.usual_answers(release),
    }
}
