//! The trial that is under way: what its judge hears, and the recording of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::judge::Judge;
use crate::judge::service_judge::ServiceJudge;
use crate::model::{CallKey, Counts, History, Moment, Observation, ReleaseNumber, Signal};
use crate::record::{SignalLog, SignalLogHeader, SignalLogWriter};
use crate::service::service_loop::ServiceLoop;
use crate::service::traffic_window::TrafficWindow;

/// Calls are counted apart each second: so many blocks.
const CALL_COUNT_BLOCKS: u64 = 4;

/// The look at a service, and what is written down of it.
#[derive(Debug)]
pub(crate) struct Bake {
    pub(crate) trial: ServiceJudge,
    recording: Option<SignalLogWriter>,
    /// The folder of the service.
    dir: PathBuf,
    /// The release on trial, and its counters when they were last read.
    last_calls: Option<(ReleaseNumber, BTreeMap<CallKey, Counts>)>,
}

impl Bake {
    /// Nothing is on trial.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { trial: ServiceJudge::default(), recording: None, dir, last_calls: None }
    }

    /// The judge of the release on trial.
    pub(crate) fn judge(&self) -> Option<&Judge> {
        self.trial.judge()
    }

    fn observe(&mut self, now: Moment, signal: &Signal) {
        if let Some(recording) = self.recording.as_mut().filter(|_| self.trial.judge().is_some()) {
            recording.append(now, signal);
        }
        self.trial.observe(now, signal);
    }

    /// Starts to record. A trial that a daemon began that was killed is gone on with.
    fn start_recording(
        &mut self,
        service: &str,
        deploy: ReleaseNumber,
        header: &SignalLogHeader,
    ) -> Option<SignalLog> {
        let opened =
            tokio::task::block_in_place(|| SignalLogWriter::open(&self.dir, deploy, header));
        match opened {
            Ok((recording, resumed)) => {
                self.recording = Some(recording);
                resumed
            }
            Err(error) => {
                tracing::warn!(service, "cannot record the signals of the bake: {error}");
                None
            }
        }
    }
}

impl ServiceLoop {
    /// Tells a signal to whoever looks.
    pub(crate) fn observe(&mut self, now: Moment, signal: &Signal) {
        self.bake.observe(now, signal);
    }

    /// Opens the trial that the phase asks for, and closes what is over.
    pub(crate) fn sync_judge(&mut self, now: Moment) {
        let target = self.watch.phase().judge_target();
        let mut trial = std::mem::take(&mut self.bake.trial);
        trial.set_target(target, now, |active, warm| self.open_judge(active, warm, now));
        self.bake.trial = trial;
        if self.bake.judge().is_none() {
            self.bake.recording = None;
            self.supervisor.set_fast_probing(false);
        }
    }

    fn open_judge(
        &mut self,
        release: ReleaseNumber,
        warm: Option<ReleaseNumber>,
        now: Moment,
    ) -> Judge {
        let history = warm.map(|warm| self.history(warm)).unwrap_or_default();
        let header = SignalLogHeader { release, warm, opened: now, history };
        let resumed = self.bake.start_recording(&self.service.name, self.watch.deploy(), &header);
        let header = resumed.as_ref().map_or(header, |left| left.header.clone());
        let limits = self.service.slo.clone();
        let mut judge = Judge::new(release, warm, limits, header.history, header.opened);
        let replayed = resumed.iter().flat_map(SignalLog::signals);
        replayed.for_each(|(at, signal)| judge.observe(at, &signal));
        judge
    }

    /// What a release had done so far.
    fn history(&self, number: ReleaseNumber) -> History {
        let gauge = self.traffic.get(&number);
        History {
            last_hour: gauge.map(TrafficWindow::hour_since_first_answer).unwrap_or_default(),
            worst_five_minutes: gauge.map(TrafficWindow::worst_window).unwrap_or_default(),
            calls: self.proxy.counts_by_call(number).into_iter().collect(),
        }
    }

    /// Each second: what ended on the release on trial, by method and tool.
    pub(crate) fn observe_calls(&mut self, now: Moment, ticks: u64) {
        let Some(release) = self.bake.judge().map(Judge::release) else {
            self.bake.last_calls = None;
            return;
        };
        if !ticks.is_multiple_of(CALL_COUNT_BLOCKS) {
            return;
        }
        let calls = self.proxy.counts_by_call(release);
        let previous = match self.bake.last_calls.take() {
            Some((of, previous)) if of == release => previous,
            _ => BTreeMap::new(),
        };
        let since = |(call, counts): (&CallKey, &Counts)| {
            let counts = counts.since(previous.get(call).unwrap_or(&Counts::default()));
            (0 < counts.total()).then(|| (call.clone(), counts))
        };
        let seen = Observation::Calls(calls.iter().filter_map(since).collect());
        self.bake.last_calls = Some((release, calls));
        self.observe(now, &Signal { release, observation: seen });
    }
}
