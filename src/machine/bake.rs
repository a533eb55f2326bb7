//! The judge of the current bake, and the calls that it has counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judge::service_judge::ServiceJudge;
use crate::judge::{Judge, SloSettings};
use crate::machine::input::BakeOpening;
use crate::machine::pause::PAUSE_MIN;
use crate::model::{CallKey, Counts, JudgeTarget, Moment, Observation, ReleaseNumber, Signal};

/// Blocks between two counts of the calls: one second.
const CALL_COUNT_BLOCKS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Bake {
    judges: ServiceJudge,
    /// The release on trial and its warm one, until the driver opens their bake.
    to_open: Option<(ReleaseNumber, Option<ReleaseNumber>)>,
    /// How the judge was opened, to open it anew.
    opening: Option<(BakeOpening, SloSettings)>,
    blocks: u64,
    last_calls: Option<CallBaseline>,
}

fn new_judge(opening: &BakeOpening, slo: &SloSettings, now: Moment) -> Judge {
    let BakeOpening { release, warm, history, .. } = opening;
    Judge::new(*release, *warm, slo.clone(), history.clone(), now)
}

fn skip_pause(judge: &mut Judge, gap: Duration) {
    if PAUSE_MIN < gap {
        judge.skip(gap);
    }
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
        now: Moment,
        opening: BakeOpening,
        slo: SloSettings,
        evidence_since: Option<Moment>,
        replay: impl IntoIterator<Item = (Moment, Signal)>,
    ) {
        let mut last = opening.opened;
        let mut fresh_at = evidence_since.filter(|since| opening.opened < *since);
        let mut judge = new_judge(&opening, &slo, last);
        for (at, signal) in replay {
            if let Some(since) = fresh_at.take_if(|since| *since <= at) {
                judge = new_judge(&opening, &slo, since);
            }
            skip_pause(&mut judge, at.since(last));
            judge.observe(at, &signal);
            last = at;
        }
        if let Some(since) = fresh_at {
            judge = new_judge(&opening, &slo, since);
        }
        skip_pause(&mut judge, now.since(last));
        self.judges.open(judge);
        self.opening = Some((opening, slo));
        self.to_open = None;
    }

    /// A hold is over: what was seen before is no evidence.
    pub(super) fn start_anew(&mut self, now: Moment) {
        if let (Some(judge), Some((opening, slo))) = (self.judge(), &self.opening)
            && judge.release() == opening.release
        {
            self.judges.open(new_judge(opening, slo, now));
        }
    }

    /// The daemon did not run for this long.
    pub(super) fn skip(&mut self, gap: Duration) {
        self.judges.skip(gap);
    }

    /// Whether the bake waits while no counter can be read: the open bake follows a reload.
    pub(super) fn set_extend_bake(&mut self, extend_bake: bool) {
        self.judges.set_extend_bake(extend_bake);
        if let Some(scrape) = self.opening.as_mut().and_then(|(_, slo)| slo.scrape.as_mut()) {
            scrape.extend_bake = extend_bake;
        }
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
