//! The signal log of the current bake, and the opening of its judge.

use std::path::PathBuf;

use crate::judge::service_judge::JudgeToOpen;
use crate::machine::{BakeOpening, ServiceMachine};
use crate::model::{History, Moment, Observation, ReleaseNumber, Signal};
use crate::proxy::Proxy;
use crate::record::{SignalLog, SignalLogHeader, SignalLogWriter};
use crate::service::traffic_window::TrafficWindow;

/// The signals of the current bake, on disk.
#[derive(Debug)]
pub(crate) struct BakeLog {
    writer: Option<SignalLogWriter>,
    /// The folder of the service.
    dir: PathBuf,
}

impl BakeLog {
    /// A log in the folder of a service. No bake is open.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { writer: None, dir }
    }

    /// Appends a signal, if a bake is open.
    pub(crate) fn append(&mut self, now: Moment, signal: &Signal) {
        self.writer.iter_mut().for_each(|writer| writer.append(now, signal));
    }

    /// Opens the judge that the phase needs, and closes the log of a bake that is over.
    pub(super) fn sync(
        &mut self,
        now: Moment,
        service: &str,
        machine: &mut ServiceMachine,
        history: impl FnOnce(ReleaseNumber) -> History,
    ) {
        if let Some(JudgeToOpen { release, warm, after_bake }) = machine.judge_to_open() {
            // After the bake nothing is recorded: a restart begins the watch anew.
            if after_bake {
                self.writer = None;
                let (opened, history) = (now, history(release));
                let opening = BakeOpening { release, warm, after_bake, opened, history };
                return machine.open_judge(now, opening, []);
            }
            let history = warm.map(history).unwrap_or_default();
            let header = SignalLogHeader { release, warm, opened: now, history };
            let resumed = self.open(service, machine.watch().deploy(), &header);
            let SignalLogHeader { opened, history, .. } =
                resumed.as_ref().map_or(header, |log| log.header.clone());
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
                self.writer = Some(writer);
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
    }
}
