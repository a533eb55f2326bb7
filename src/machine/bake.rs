//! The judge of the current bake, and the calls that it has counted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judge::service_judge::{JudgeToOpen, ServiceJudge};
use crate::judge::trial::ReleaseTrial;
use crate::judge::{Judge, SloSettings};
use crate::machine::input::BakeOpening;
use crate::machine::pause::PAUSE_MIN;
use crate::machine::starts::Starts;
use crate::model::{
    CallKey, Counts, JudgeTarget, Moment, Observation, RampStep, ReleaseNumber, Signal, Verdict,
};

/// A release is watched after its bake for so long, and then anew: the probability of a false page in it
/// is at most that of a false rollback in a bake.
const WATCH_PERIOD: Duration = Duration::from_hours(24);
/// Blocks between two counts of the calls: one second.
const CALL_COUNT_BLOCKS: u64 = 4;

#[derive(Debug, Default)]
pub(super) struct Bake {
    judges: ServiceJudge,
    /// The trial of the release, where it has a ramp.
    trial: Option<ReleaseTrial>,
    /// The judge that is missing, until the driver opens it.
    to_open: Option<JudgeToOpen>,
    /// How the judge was opened, to open it again.
    opening: Option<(BakeOpening, SloSettings, Option<BakeRamp>)>,
    blocks: u64,
    last_calls: Option<CallBaseline>,
    starts: Starts,
}

/// The ramp of a bake.
#[derive(Debug, Clone, Copy)]
pub(super) struct BakeRamp {
    /// Its step.
    pub(super) step: RampStep,
    /// How long a step lasts at most.
    pub(super) step_max: Duration,
}

fn new_trial(
    opening: &BakeOpening,
    slo: &SloSettings,
    ramp: Option<BakeRamp>,
    now: Moment,
) -> Option<ReleaseTrial> {
    let BakeOpening { release, history, .. } = opening;
    ramp.map(|ramp| ReleaseTrial::new(*release, slo, ramp.step_max, history, now))
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

/// A trial that starts again with the step of the one before it.
fn resumed_trial(
    before: Option<ReleaseTrial>,
    mut trial: Option<ReleaseTrial>,
    now: Moment,
) -> Option<ReleaseTrial> {
    if let (Some(before), Some(trial)) = (before, &mut trial)
        && let Some(step) = before.step()
    {
        let signal = Signal { release: before.release(), observation: Observation::Step(step) };
        trial.observe(now, &signal);
    }
    trial
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
        self.starts.observe(now, signal);
        self.judges.observe(now, signal);
        self.trial.iter_mut().for_each(|trial| trial.observe(now, signal));
    }

    /// The trial of the release, where it has a ramp.
    pub(super) fn trial(&self) -> Option<&ReleaseTrial> {
        self.trial.as_ref()
    }

    /// The verdict on the release on trial.
    pub(super) fn verdict(&self, now: Moment) -> Option<Verdict> {
        let judge = self.judge()?;
        Some(match &self.trial {
            Some(trial) => trial.verdict(now, judge),
            None => judge.verdict(now),
        })
    }

    pub(super) fn recovery(&self, now: Moment) -> Option<(ReleaseNumber, String)> {
        self.judges.recovery(now)
    }

    /// What the release failed last that took over.
    pub(super) fn recovery_failure(&self) -> Option<String> {
        self.judges.recovery_failure()
    }

    pub(super) fn end_block(&mut self) {
        self.blocks += 1;
    }

    /// Closes what the phase no longer needs.
    pub(super) fn set_target(&mut self, target: JudgeTarget, now: Moment) {
        self.to_open = self.judges.set_target(target, now);
        if self.judge().is_none() {
            self.trial = None;
        }
    }

    pub(super) fn to_open(&self) -> Option<JudgeToOpen> {
        self.to_open
    }

    pub(super) fn open(
        &mut self,
        now: Moment,
        opening: BakeOpening,
        mut slo: SloSettings,
        ramp: Option<BakeRamp>,
        evidence_since: Option<Moment>,
        replay: impl IntoIterator<Item = (Moment, Signal)>,
    ) {
        if opening.after_bake {
            slo.bake = WATCH_PERIOD;
        }
        let mut last = opening.opened;
        let mut fresh_at = evidence_since.filter(|since| opening.opened < *since);
        let mut judge = new_judge(&opening, &slo, last);
        let mut trial = new_trial(&opening, &slo, ramp, last);
        for (at, signal) in replay {
            if let Some(since) = fresh_at.take_if(|since| *since <= at) {
                judge = new_judge(&opening, &slo, since);
                trial = resumed_trial(trial, new_trial(&opening, &slo, ramp, since), since);
            }
            skip_pause(&mut judge, at.since(last));
            judge.observe(at, &signal);
            trial.iter_mut().for_each(|trial| trial.observe(at, &signal));
            last = at;
        }
        if let Some(since) = fresh_at {
            judge = new_judge(&opening, &slo, since);
            trial = resumed_trial(trial, new_trial(&opening, &slo, ramp, since), since);
        }
        skip_pause(&mut judge, now.since(last));
        // What began before a restart and is not in the record says nothing.
        trial.iter_mut().filter(|_| last < now).for_each(|trial| trial.skip(last));
        if let (Some(trial), Some(ramp)) = (&mut trial, ramp) {
            let signal =
                Signal { release: opening.release, observation: Observation::Step(ramp.step) };
            trial.observe(now, &signal);
        }
        self.starts.replay(now, &mut judge);
        self.judges.open(judge);
        self.trial = trial;
        self.opening = Some((opening, slo, ramp));
        self.to_open = None;
    }

    /// At the end of a block: whether the watch after a bake has run for one period, and begins anew.
    pub(super) fn is_watch_over(&self, now: Moment) -> bool {
        self.opening.as_ref().is_some_and(|(opening, ..)| {
            opening.after_bake
                && self.judge().is_some()
                && WATCH_PERIOD <= now.since(opening.opened)
        })
    }

    /// What was seen before is no evidence any more: a hold is over, or a period of the watch.
    pub(super) fn start_anew(&mut self, now: Moment) {
        if let (Some(judge), Some((opening, slo, ramp))) = (self.judges.judge(), &mut self.opening)
            && judge.release() == opening.release
        {
            if opening.after_bake {
                opening.opened = now;
            }
            let trial = new_trial(opening, slo, *ramp, now);
            self.trial = resumed_trial(self.trial.take(), trial, now);
            let mut judge = new_judge(opening, slo, now);
            self.starts.replay(now, &mut judge);
            self.judges.open(judge);
        }
    }

    /// The daemon did not run for this long.
    pub(super) fn skip(&mut self, now: Moment, gap: Duration) {
        self.judges.skip(gap);
        self.starts.skip(gap);
        self.trial.iter_mut().for_each(|trial| trial.skip(now));
    }

    /// Whether the bake waits while no counter can be read: the open bake follows a reload.
    pub(super) fn set_extend_bake(&mut self, extend_bake: bool) {
        self.judges.set_extend_bake(extend_bake);
        if let Some(scrape) = self.opening.as_mut().and_then(|(_, slo, _)| slo.scrape.as_mut()) {
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
