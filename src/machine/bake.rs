//! The judge of the current bake, and the calls that it has counted.

use std::collections::BTreeMap;

use crate::judge::service_judge::ServiceJudge;
use crate::judge::{Judge, SloSettings};
use crate::machine::input::BakeOpening;
use crate::model::{CallKey, Counts, JudgeTarget, Moment, Observation, ReleaseNumber, Signal};

/// Blocks between two counts of the calls: one second.
const CALL_COUNT_BLOCKS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Bake {
    judges: ServiceJudge,
    /// The release on trial and its warm one, until the driver opens their bake.
    to_open: Option<(ReleaseNumber, Option<ReleaseNumber>)>,
    blocks: u64,
    last_calls: Option<CallBaseline>,
}

/// The cumulative counts of the release on trial at the last count.
#[derive(Debug)]
struct CallBaseline {
    release: ReleaseNumber,
    counts: BTreeMap<CallKey, Counts>,
}

impl Bake {
    pub(super) fn judge(&self) -> Option<&Judge> {
        self.judges.judge()
    }

    pub(super) fn observe(&mut self, now: Moment, signal: &Signal) {
        self.judges.observe(now, signal);
    }

    pub(super) fn recovery(&self, now: Moment) -> Option<(ReleaseNumber, String)> {
        self.judges.recovery(now)
    }

    pub(super) fn end_block(&mut self) {
        self.blocks += 1;
    }

    /// Closes what the phase no longer needs.
    pub(super) fn set_target(&mut self, target: JudgeTarget, now: Moment) {
        self.to_open = self.judges.set_target(target, now);
    }

    pub(super) fn to_open(&self) -> Option<(ReleaseNumber, Option<ReleaseNumber>)> {
        self.to_open
    }

    pub(super) fn open(
        &mut self,
        opening: BakeOpening,
        slo: SloSettings,
        replay: impl IntoIterator<Item = (Moment, Signal)>,
    ) {
        let BakeOpening { release, warm, opened, history } = opening;
        let mut judge = Judge::new(release, warm, slo, history, opened);
        replay.into_iter().for_each(|(at, signal)| judge.observe(at, &signal));
        self.judges.open(judge);
        self.to_open = None;
    }

    pub(super) fn calls_due(&mut self) -> Option<ReleaseNumber> {
        let release = self.judge().map(Judge::release);
        if release.is_none() {
            self.last_calls = None;
        }
        release.filter(|_| self.blocks.is_multiple_of(CALL_COUNT_BLOCKS))
    }

    pub(super) fn calls_since_last(
        &mut self,
        release: ReleaseNumber,
        counts: BTreeMap<CallKey, Counts>,
    ) -> Signal {
        let previous = self.last_calls.take().filter(|it| it.release == release);
        let previous = previous.map(|it| it.counts).unwrap_or_default();
        let since = |(call, total): (&CallKey, &Counts)| {
            let counts = total.since(previous.get(call).unwrap_or(&Counts::default()));
            (0 < counts.total()).then(|| (call.clone(), counts))
        };
        let observation = Observation::Calls(counts.iter().filter_map(since).collect());
        self.last_calls = Some(CallBaseline { release, counts });
        Signal { release, observation }
    }
}
