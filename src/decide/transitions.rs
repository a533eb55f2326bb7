//! How a timeline event changes the state. The same code runs after an event is recorded and when
//! a timeline is read again.

use std::time::Duration;

use crate::decide::after_bake::SteadyWatch;
use crate::decide::deploy::quarantine;
use crate::decide::phase::{PendingRollback, Phase, Rollback};
use crate::decide::ramp::Ramp;
use crate::decide::watch::{Policy, Watch};
use crate::model::{
    CarriedOver, Guard, Hold, Moment, Release, ReleaseLoad, ReleaseNumber, Strategy, Ticket,
    TimelineEntry, TimelineEvent, Trigger,
};

/// The window of the rollback limit.
const ROLLBACK_LIMIT_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// A bake goes on for at least so long after a hold, if it is as long.
const BAKE_AFTER_RESUME_MIN: Duration = Duration::from_secs(60);

impl Watch {
    /// Folds a timeline. `now` is when the daemon reads it. The daemon did not run in between, so
    /// deadlines move by that time, and by the downtime of each earlier restart.
    pub fn restore(policy: Policy, entries: &[TimelineEntry], now: Moment) -> Self {
        Self::restore_observed(policy, entries, None, now)
    }

    /// The same; the daemon still ran at `observed_at`, as its log of signals shows.
    pub fn restore_observed(
        policy: Policy,
        entries: &[TimelineEntry],
        observed_at: Option<Moment>,
        now: Moment,
    ) -> Self {
        let mut watch = Self::new(policy);
        let mut last = entries.first().map_or(now, |first| first.moment);
        for entry in entries {
            if let TimelineEvent::Restored { unobserved_ms, .. } = entry.event {
                let downtime = unobserved_ms.map(Duration::from_millis);
                watch.phase.shift_deadlines(downtime.unwrap_or(entry.moment.since(last)));
            }
            watch.deploy = entry.deploy;
            watch.apply(entry.moment, &entry.event);
            last = entry.moment;
        }
        watch.downtime = now.since(observed_at.unwrap_or(last).max(last));
        watch.phase.shift_deadlines(watch.downtime);
        watch
    }

    /// Applies a recorded event.
    pub fn apply(&mut self, now: Moment, fact: &TimelineEvent) {
        self.record_ready(now, fact);
        // The rest of the traffic follows.
        let ends_ramp =
            matches!(fact, TimelineEvent::Accepted { .. }) && self.phase.ramp().is_some();
        if let Some(phase) = self.next_phase(now, fact) {
            let restarts_bake = matches!(fact, TimelineEvent::Replaced { .. });
            if restarts_bake || phase.name() != self.phase.name() {
                self.since = now;
            }
            self.phase = phase;
        }
        self.update_carried_over(now, fact);
        if ends_ramp || needs_new_ticket(fact) {
            self.ticket = Ticket(self.ticket.0 + 1);
        }
    }

    /// The phase that a fact leads to. A fact that does not fit the phase, as it could stand in a
    /// timeline that was edited by hand, changes nothing.
    fn next_phase(&self, now: Moment, fact: &TimelineEvent) -> Option<Phase> {
        self.deploy_transition(now, fact)
            .or_else(|| self.bake_transition(now, fact))
            .or_else(|| self.after_bake_transition(now, fact))
            .or_else(|| self.rollback_transition(now, fact))
    }

    /// A new release starts, and gets the traffic.
    fn deploy_transition(&self, now: Moment, fact: &TimelineEvent) -> Option<Phase> {
        let policy = &self.policy;
        Some(match (fact, self.phase.clone()) {
            (TimelineEvent::Deployed { release, carried_over: base, .. }, _) => {
                let (active, warm) = (base.active.clone(), base.warm.clone());
                let (new, until) = (release.clone(), now + policy.start_timeout);
                Phase::Starting { active, warm, new, until }
            }
            (TimelineEvent::Replaced { release, warm, .. }, _) => {
                self.baking(now, release.clone(), warm.clone(), None)
            }
            (TimelineEvent::Ready { ramp, .. }, Phase::Starting { active, new, .. }) => {
                let until = now + policy.retry_interval;
                let ramp = ramp.filter(|_| active.is_some()).map(|step| Ramp::new(step, now));
                Phase::Promoting { from: active, to: new, until, tries: 1, ramp }
            }
            (TimelineEvent::Failed, Phase::Starting { active, warm, .. }) => {
                steady_or_empty(active, warm, SteadyWatch::On)
            }
            (
                TimelineEvent::Switched { .. },
                Phase::Promoting { from: warm, to: active, ramp, .. },
            ) => self.baking(now, active, warm, ramp),
            (TimelineEvent::Retried { tries }, phase) => self.retry(now, phase, *tries)?,
            (TimelineEvent::Paused { ms }, mut phase) => {
                phase.shift_deadlines(Duration::from_millis(*ms));
                phase
            }
            _ => return None,
        })
    }

    /// A release is on trial.
    fn bake_transition(&self, now: Moment, fact: &TimelineEvent) -> Option<Phase> {
        Some(match (fact, self.phase.clone()) {
            (TimelineEvent::Accepted { .. }, Phase::Baking { active, warm, .. }) => {
                Phase::Steady { active, warm, watch: SteadyWatch::On }
            }
            (
                TimelineEvent::Stepped { ramp: step },
                Phase::Baking { active, warm, until, blocked, no_data_since, ramp: Some(ramp) },
            ) => {
                let ramp = Some(ramp.next(*step, now));
                Phase::Baking { active, warm, until, blocked, no_data_since, ramp }
            }
            (
                TimelineEvent::Blocked { guard, .. },
                Phase::Baking { active, warm, until, no_data_since: blind, ramp, .. },
            ) => {
                let until = extend_by_no_data(until, blind, now);
                let no_data_since = (*guard == Guard::NoData).then_some(now);
                let blocked = Some(*guard);
                Phase::Baking { active, warm, until, blocked, no_data_since, ramp }
            }
            (
                TimelineEvent::Cleared | TimelineEvent::Resumed { .. },
                Phase::Baking { active, warm, until, no_data_since: blind, ramp, .. },
            ) => {
                let mut until = extend_by_no_data(until, blind, now).max(now);
                // Its evidence starts again, and needs time.
                if matches!(fact, TimelineEvent::Resumed { .. }) && warm.is_some() {
                    until = until.max(now + self.policy.bake.min(BAKE_AFTER_RESUME_MIN));
                }
                let (blocked, no_data_since) = (None, None);
                Phase::Baking { active, warm, until, blocked, no_data_since, ramp }
            }
            (TimelineEvent::Detected { trigger, load }, _) => {
                self.confirming(now, trigger.clone(), *load)?
            }
            // A hold takes effect at once: an operator's rollback goes on, the judge's ends.
            (TimelineEvent::Held { .. }, Phase::Confirming(breach) | Phase::Reviving(breach))
                if !breach.trigger.is_operator() =>
            {
                let PendingRollback { bad: active, warm, ramp, .. } = breach;
                let (until, blocked) = (now + self.policy.bake, Some(Guard::Hold));
                let (warm, no_data_since) = (Some(warm), None);
                Phase::Baking { active, warm, until, blocked, no_data_since, ramp }
            }
            _ => return None,
        })
    }

    /// The traffic goes back.
    fn rollback_transition(&self, now: Moment, fact: &TimelineEvent) -> Option<Phase> {
        let policy = &self.policy;
        Some(match (fact, self.phase.clone()) {
            (TimelineEvent::Reviving, Phase::Confirming(breach)) => {
                // Two minutes count from the finding, whatever the start of a release may take.
                let until = (now + policy.start_timeout).min(breach.complete_by);
                Phase::Reviving(PendingRollback { until, ..breach })
            }
            // Most users are on the control: they stay.
            (TimelineEvent::Abandoned, Phase::Confirming(it) | Phase::Reviving(it))
                if it.ramp.is_some() =>
            {
                Phase::Steady { active: it.warm, warm: Some(it.bad), watch: SteadyWatch::Off }
            }
            (TimelineEvent::Abandoned, Phase::Confirming(it) | Phase::Reviving(it)) => {
                Phase::Steady { active: it.bad, warm: Some(it.warm), watch: SteadyWatch::Off }
            }
            (
                TimelineEvent::Decided { strategy, .. },
                Phase::Confirming(it) | Phase::Reviving(it),
            ) => Phase::Returning(self.rollback(now, it, *strategy)),
            (TimelineEvent::Switched { .. }, Phase::Returning(back)) => Phase::Emptying(Rollback {
                until: back.drain_until + policy.retry_interval,
                tries: 1,
                ..back
            }),
            (TimelineEvent::Escalated(_), Phase::Emptying(back)) => Phase::Emptying(Rollback {
                strategy: Strategy::Cut,
                until: now + policy.retry_interval,
                tries: 1,
                ..back
            }),
            (TimelineEvent::Drained { .. } | TimelineEvent::Cut { .. }, Phase::Emptying(back)) => {
                let until = now + policy.recovery_timeout;
                Phase::Recovering { active: back.to, bad: back.bad, until }
            }
            (TimelineEvent::Recovered, Phase::Recovering { active, .. }) => {
                steady_or_empty(Some(active), None, SteadyWatch::On)
            }
            // The bad release may be the better one: an operator can roll back to it.
            (TimelineEvent::Unrecovered, Phase::Recovering { active, bad, .. }) => {
                steady_or_empty(Some(active), Some(bad), SteadyWatch::Off)
            }
            _ => return None,
        })
    }

    fn confirming(&self, now: Moment, trigger: Trigger, load: ReleaseLoad) -> Option<Phase> {
        let (Phase::Baking { active: bad, warm: Some(warm), .. }
        | Phase::Steady { active: bad, warm: Some(warm), .. }) = &self.phase
        else {
            return None;
        };
        Some(Phase::Confirming(PendingRollback {
            bad: bad.clone(),
            warm: warm.clone(),
            trigger,
            load,
            complete_by: now + self.policy.rollback_timeout,
            until: now + self.policy.target_check_timeout,
            ramp: self.phase.ramp().copied(),
        }))
    }

    fn rollback(&self, now: Moment, breach: PendingRollback, strategy: Strategy) -> Rollback {
        let drained_by = match strategy {
            Strategy::Drain => (now + self.policy.drain_timeout).min(breach.complete_by).max(now),
            Strategy::Cut => now,
        };
        let until = now + self.policy.retry_interval;
        Rollback {
            bad: breach.bad,
            to: breach.warm,
            strategy,
            drain_until: drained_by,
            until,
            tries: 1,
        }
    }

    fn retry(&self, now: Moment, phase: Phase, tries: u32) -> Option<Phase> {
        let wait = self.policy.retry_interval * 2_u32.pow(tries.min(self.policy.page_after_tries));
        let (tries, until) = (tries + 1, now + wait);
        Some(match phase {
            Phase::Promoting { from, to, ramp, .. } => {
                Phase::Promoting { from, to, until, tries, ramp }
            }
            Phase::Returning(back) => Phase::Returning(Rollback { until, tries, ..back }),
            Phase::Emptying(back) => Phase::Emptying(Rollback { until, tries, ..back }),
            _ => return None,
        })
    }

    /// Updates what outlives the phase.
    fn update_carried_over(&mut self, now: Moment, fact: &TimelineEvent) {
        match fact {
            TimelineEvent::Deployed {
                release, frozen, forced, strict, carried_over: base, ..
            } => {
                self.deploy = release.number;
                (self.frozen, self.forced, self.strict) = (*frozen, *forced, *strict);
                (self.evidence_since, self.ramp_choice) = (None, None);
                self.carried_over = CarriedOver::clone(base);
                let identity = release.quarantine_key();
                self.carried_over.quarantine.retain(|known| *known != identity);
            }
            TimelineEvent::Replaced { release, carried_over: base, .. } => {
                self.deploy = release.number;
                (self.frozen, self.forced, self.strict) = (false, false, false);
                (self.evidence_since, self.ramp_choice) = (None, None);
                self.carried_over = CarriedOver::clone(base);
                // What has the traffic is never in quarantine.
                let identity = release.quarantine_key();
                self.carried_over.quarantine.retain(|known| *known != identity);
            }
            TimelineEvent::Decided { ordered, .. } => {
                if let Phase::Returning(back) = &self.phase {
                    quarantine(&mut self.carried_over.quarantine, &back.bad, &back.to);
                }
                self.carried_over.rollbacks.retain(|then| now.since(*then) < ROLLBACK_LIMIT_WINDOW);
                // The limit binds the daemon, not an operator.
                if !ordered {
                    self.carried_over.rollbacks.push(now);
                }
            }
            TimelineEvent::Blocked { guard: guard @ (Guard::Freeze | Guard::Limit), .. } => {
                let because = format!("{guard}: `rollbackd resume` allows rollbacks again");
                self.carried_over.hold.get_or_insert(Hold { by: None, because });
            }
            // A hold of the daemon ends with its cause.
            TimelineEvent::Cleared => {
                self.carried_over.hold.take_if(|hold| hold.by.is_none());
            }
            TimelineEvent::Abandoned => {
                let because =
                    "the previous release could not take over: `rollbackd rollback` tries \
                               again, `rollbackd resume` allows automatic rollbacks again"
                        .to_owned();
                self.carried_over.hold.get_or_insert(Hold { by: None, because });
            }
            TimelineEvent::Held { hold } => self.carried_over.hold = Some(hold.clone()),
            TimelineEvent::Resumed { .. } => {
                self.carried_over.hold = None;
                self.evidence_since = Some(now);
                // Otherwise the limit would hold the service again at the next verdict.
                if self.rollback_limit_ends_in(now).is_some() {
                    self.carried_over.rollbacks.clear();
                }
            }
            TimelineEvent::Restored { .. } => self.downtime = Duration::ZERO,
            _ => (),
        }
        self.carried_over.active = self.phase.active().cloned();
    }

    /// What a new deploy takes over from the ones before it.
    pub(super) fn carried_over(&self, now: Moment) -> CarriedOver {
        let mut base = self.carried_over.clone();
        // A hold that the daemon set ends with the next deploy.
        base.hold = base.hold.filter(|hold| hold.by.is_some());
        base.rollbacks.retain(|then| now.since(*then) < ROLLBACK_LIMIT_WINDOW);
        base.ready_ms.retain(|(number, _)| self.phase.release(*number).is_some());
        base.warm = None;
        base
    }

    /// Automatic rollbacks of the last 24 hours.
    pub fn rollbacks_today(&self, now: Moment) -> usize {
        self.carried_over
            .rollbacks
            .iter()
            .filter(|then| now.since(**then) < ROLLBACK_LIMIT_WINDOW)
            .count()
    }

    /// Where no automatic rollback is left: the time until one is.
    pub fn rollback_limit_ends_in(&self, now: Moment) -> Option<Duration> {
        let limit = self.policy.rollbacks_per_day_max;
        let ages = self.carried_over.rollbacks.iter().map(|then| now.since(*then));
        let mut ages: Vec<_> = ages.filter(|age| *age < ROLLBACK_LIMIT_WINDOW).collect();
        ages.sort();
        // This number of the newest ones fills the limit.
        let filled_at = ages.get(limit.checked_sub(1)?)?;
        Some(ROLLBACK_LIMIT_WINDOW - *filled_at)
    }

    pub(super) fn next_number(&self) -> ReleaseNumber {
        ReleaseNumber(self.deploy.0 + 1)
    }
}

/// Whether this event has effects, so that answers to older effects do not count.
fn needs_new_ticket(fact: &TimelineEvent) -> bool {
    match fact {
        TimelineEvent::Deployed { .. }
        | TimelineEvent::Replaced { .. }
        | TimelineEvent::Ready { .. }
        | TimelineEvent::Stepped { .. }
        | TimelineEvent::Failed
        | TimelineEvent::Detected { .. }
        | TimelineEvent::Reviving
        | TimelineEvent::Abandoned
        | TimelineEvent::Decided { .. }
        | TimelineEvent::Escalated(_)
        | TimelineEvent::Retried { .. }
        | TimelineEvent::Unrecovered
        | TimelineEvent::Restored { .. } => true,
        TimelineEvent::Switched { .. }
        | TimelineEvent::Accepted { .. }
        | TimelineEvent::Drained { .. }
        | TimelineEvent::Cut { .. }
        | TimelineEvent::Recovered
        | TimelineEvent::Blocked { .. }
        | TimelineEvent::Cleared
        | TimelineEvent::Held { .. }
        | TimelineEvent::Resumed { .. }
        | TimelineEvent::Paused { .. }
        | TimelineEvent::Notified { .. }
        | TimelineEvent::Acknowledged { .. }
        | TimelineEvent::Reloaded { .. }
        | TimelineEvent::Noted => false,
    }
}

/// The end of the bake, extended by the time without data.
fn extend_by_no_data(until: Moment, blind: Option<Moment>, now: Moment) -> Moment {
    blind.map_or(until, |since| until + now.since(since))
}

fn steady_or_empty(active: Option<Release>, warm: Option<Release>, watch: SteadyWatch) -> Phase {
    active.map_or(Phase::Empty, |active| Phase::Steady { active, warm, watch })
}
