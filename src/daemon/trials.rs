//! The trial that is under way: what its judge hears, and the recording of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::judge::Judge;
use crate::judge::trial::Trial;
use crate::model::{Call, Counts, History, Moment, Number, Seen, Signal};
use crate::record::{Opening, Recorded, Recording};

use super::gauge::Gauge;
use super::keeper::Keeper;

/// Calls are counted apart each second: so many blocks.
const CALLS_BLOCKS: u64 = 4;

/// The look at a service, and what is written down of it.
#[derive(Debug)]
pub(super) struct Trials {
    pub(super) trial: Trial,
    recording: Option<Recording>,
    /// The folder of the service.
    dir: PathBuf,
    /// The release on trial, and its counters when they were last read.
    calls: Option<(Number, BTreeMap<Call, Counts>)>,
}

impl Trials {
    /// Nothing is on trial.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { trial: Trial::default(), recording: None, dir, calls: None }
    }

    /// The judge of the release on trial.
    pub(super) fn judge(&self) -> Option<&Judge> {
        self.trial.judge()
    }

    fn hear(&mut self, now: Moment, signal: &Signal) {
        if let Some(recording) = self.recording.as_mut().filter(|_| self.trial.judge().is_some()) {
            recording.note(now, signal);
        }
        self.trial.hear(now, signal);
    }

    /// Starts to record. A trial that a daemon began that was killed is gone on with.
    fn record(&mut self, service: &str, deploy: Number, opening: &Opening) -> Option<Recorded> {
        let opened = tokio::task::block_in_place(|| Recording::open(&self.dir, deploy, opening));
        match opened {
            Ok((recording, left)) => {
                self.recording = Some(recording);
                left
            }
            Err(error) => {
                tracing::warn!(service, "failed to record the bake, it goes on: {error}");
                None
            }
        }
    }
}

impl Keeper {
    /// Tells a signal to whoever looks.
    pub(super) fn weigh(&mut self, now: Moment, signal: &Signal) {
        self.trials.hear(now, signal);
    }

    /// Opens the trial that the phase asks for, and closes what is over.
    pub(super) fn open_trials(&mut self, now: Moment) {
        let look = self.watch.phase().look();
        let mut trial = std::mem::take(&mut self.trials.trial);
        trial.follow(look, now, |active, warm| self.open(active, warm, now));
        self.trials.trial = trial;
        if self.trials.judge().is_none() {
            self.trials.recording = None;
            self.crew.hurry(false);
        }
    }

    fn open(&mut self, release: Number, warm: Option<Number>, now: Moment) -> Judge {
        let history = warm.map(|warm| self.history(warm)).unwrap_or_default();
        let opening = Opening { release, warm, opened: now, history };
        let left = self.trials.record(&self.service.name, self.watch.deploy(), &opening);
        let opening = left.as_ref().map_or(opening, |left| left.opening.clone());
        let limits = self.service.judge.clone();
        let mut judge = Judge::new(release, warm, limits, opening.history, opening.opened);
        let heard = left.iter().flat_map(Recorded::signals);
        heard.for_each(|(at, signal)| judge.hear(at, &signal));
        judge
    }

    /// What a release had done so far.
    fn history(&self, number: Number) -> History {
        let gauge = self.gauges.get(&number);
        History {
            hour: gauge.map(Gauge::warm_hour).unwrap_or_default(),
            worst: gauge.map(Gauge::worst).unwrap_or_default(),
            calls: self.proxy.calls(number).into_iter().collect(),
        }
    }

    /// Each second: what ended on the release on trial, by method and tool.
    pub(super) fn count_calls(&mut self, now: Moment, ticks: u64) {
        let Some(release) = self.trials.judge().map(Judge::release) else {
            self.trials.calls = None;
            return;
        };
        if !ticks.is_multiple_of(CALLS_BLOCKS) {
            return;
        }
        let calls = self.proxy.calls(release);
        let before = match self.trials.calls.take() {
            Some((of, before)) if of == release => before,
            _ => BTreeMap::new(),
        };
        let since = |(call, counts): (&Call, &Counts)| {
            let counts = counts.since(before.get(call).unwrap_or(&Counts::default()));
            (0 < counts.total()).then(|| (call.clone(), counts))
        };
        let seen = Seen::Calls(calls.iter().filter_map(since).collect());
        self.trials.calls = Some((release, calls));
        self.weigh(now, &Signal { release, seen });
    }
}
