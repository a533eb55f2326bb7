//! Events from the judge, the proxy and the supervisor in, decisions out.

use crate::decide::phase::{PendingRollback, Phase, Rollback};
use crate::decide::strategy::{self, StrategyChoice};
use crate::decide::watch::Watch;
use crate::model::{
    Decision, DrainCost, Effect, Event, Finding, Guard, Moment, ProbeResult, ReleaseLoad,
    ReleaseNumber, Strategy, StrategyReason, TimelineEvent, Trigger, Verdict,
};

const BREACH_ENDED: &str = "the breach is over";

impl Watch {
    /// The decision on an event. An event that does not fit the phase, or answers an older ticket,
    /// leads to none.
    pub fn on_event(&self, now: Moment, event: &Event) -> Option<Decision> {
        match event {
            Event::Judged(verdict, load) => self.on_verdict(now, verdict, load),
            Event::Replaced(number, named, because) => {
                self.on_replaced(now, *number, named.as_deref(), because)
            }
            Event::Ready(ticket, ready) if *ticket == self.ticket => self.on_ready(now, ready),
            Event::NotReady(ticket, why) if *ticket == self.ticket => self.on_not_ready(now, why),
            Event::Probed(ticket, reply) if *ticket == self.ticket => {
                self.on_probe_result(now, reply)
            }
            Event::ArtifactChanged(ticket, why) if *ticket == self.ticket => {
                self.on_artifact_changed(now, why)
            }
            Event::Routed(ticket) if *ticket == self.ticket => self.on_routed(now),
            Event::NothingInFlight(ticket, cost) if *ticket == self.ticket => {
                self.on_nothing_in_flight(now, cost.clone())
            }
            Event::Recovered(number, because) => self.on_recovered(now, *number, because),
            Event::NotRecovered(found) if self.deadline().is_some_and(|due| due <= now) => {
                self.on_not_recovered(now, found)
            }
            Event::StepDue(step, because) => self.on_step_due(now, *step, because),
            Event::DeadlinePassed if self.deadline().is_some_and(|due| due <= now) => {
                self.on_deadline(now)
            }
            _ => None,
        }
    }

    fn on_verdict(&self, now: Moment, verdict: &Verdict, load: &ReleaseLoad) -> Option<Decision> {
        match &self.phase {
            Phase::Baking { active, warm, until, blocked, .. }
                if active.number == verdict.release =>
            {
                match (verdict.finding, blocked) {
                    (Finding::Breach(_) | Finding::SharedOutage | Finding::Unattributed, _) => {
                        self.on_breach(now, verdict, load, *blocked)
                    }
                    (Finding::OneUser | Finding::Differs, _) => {
                        self.on_report(now, verdict, *until, *blocked)
                    }
                    // A proven breach is neither over nor accepted before the blame is decided.
                    (Finding::Measuring, _) => None,
                    // Without a release to go back to there is nothing to wait for.
                    (Finding::NoData, blocked) if warm.is_some() => {
                        self.on_no_data(now, verdict, *blocked)
                    }
                    // A person decides: the bake is over, and most users have not met the release.
                    (_, Some(Guard::Ramp)) => None,
                    (Finding::Healthy | Finding::Undecided | Finding::NoData, Some(guard)) => {
                        let over =
                            if *guard == Guard::NoData { "the bake goes on" } else { BREACH_ENDED };
                        let because = format!("{guard}: {over}: {}", verdict.because);
                        Some(self.decide(now, TimelineEvent::Cleared, because))
                    }
                    (_, None) if *until <= now && !self.is_held() && self.ramps_still() => {
                        self.on_ramp_incomplete(now, verdict)
                    }
                    (finding, None) if *until <= now && !self.is_held() => {
                        Some(self.accept(now, finding == Finding::Healthy, &verdict.because))
                    }
                    _ => None,
                }
            }
            Phase::Steady { .. } => self.on_verdict_after_bake(now, verdict, load),
            Phase::Emptying(back @ Rollback { strategy: Strategy::Drain, .. })
                if back.bad.number == verdict.release =>
            {
                self.escalate_drain(now, back, verdict, load)
            }
            _ => None,
        }
    }

    /// A verdict against the release on trial passes the guards in order of severity.
    fn on_breach(
        &self,
        now: Moment,
        verdict: &Verdict,
        load: &ReleaseLoad,
        blocked: Option<Guard>,
    ) -> Option<Decision> {
        let Phase::Baking { active, warm, .. } = &self.phase else { return None };
        let found = &verdict.because;
        let because = match verdict.finding {
            Finding::SharedOutage => format!("shared outage: {found}"),
            Finding::Unattributed => format!("{active} fails, the cause is not known: {found}"),
            finding => format!("{active} is {finding}: {found}"),
        };
        match self.blocking_guard(now, verdict, warm.is_some()) {
            Some(guard) if blocked == Some(guard) => None,
            Some(guard) => {
                let because = match guard {
                    Guard::SharedOutage => format!("{because}; no rollback"),
                    _ => format!("{because}; no rollback: {guard}"),
                };
                let verdict = verdict.clone();
                let page = Effect::Page(because.clone());
                let mut decision =
                    self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
                if guard != Guard::Observe {
                    decision.effects.push(page);
                }
                Some(decision)
            }
            None => {
                let trigger = Trigger::Verdict(Box::new(verdict.clone()));
                let fact = TimelineEvent::Detected { trigger, load: *load };
                Some(self.decide(now, fact, because))
            }
        }
    }

    /// One user fails and others are served, or answers differ from before: a person is told, and the bake
    /// goes on. It is accepted like a release with too little evidence.
    fn on_report(
        &self,
        now: Moment,
        verdict: &Verdict,
        until: Moment,
        blocked: Option<Guard>,
    ) -> Option<Decision> {
        let Phase::Baking { active, .. } = &self.phase else { return None };
        if until <= now && !self.is_held() && !self.ramps_still() {
            return Some(self.accept(now, false, &verdict.because));
        }
        if blocked.is_some_and(|guard| guard != Guard::NoData) {
            return None;
        }
        let (guard, what) = match verdict.finding {
            Finding::OneUser => (Guard::OneUser, "fails for one user"),
            _ => (Guard::Differs, "answers differently"),
        };
        let because = format!("{active} {what}: {}; no rollback", verdict.because);
        let page = Effect::Page(because.clone());
        let verdict = verdict.clone();
        let mut decision = self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
        decision.effects.push(page);
        Some(decision)
    }

    /// Missing data is neither good nor bad: the bake waits, and the operator is paged.
    fn on_no_data(
        &self,
        now: Moment,
        verdict: &Verdict,
        blocked: Option<Guard>,
    ) -> Option<Decision> {
        let guard = Guard::NoData;
        if blocked == Some(guard) {
            return None;
        }
        let because = format!("{}; the bake waits: {guard}", verdict.because);
        let page = Effect::Page(because.clone());
        let verdict = verdict.clone();
        let mut decision = self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
        decision.effects.push(page);
        Some(decision)
    }

    /// The rule that blocks a rollback after this verdict.
    pub(super) fn blocking_guard(
        &self,
        now: Moment,
        verdict: &Verdict,
        warm: bool,
    ) -> Option<Guard> {
        let guards = [
            (verdict.finding == Finding::SharedOutage, Guard::SharedOutage),
            (!warm, Guard::NoWarm),
            (verdict.finding == Finding::Unattributed, Guard::NoBaseline),
            (self.frozen, Guard::Freeze),
            (self.policy.observe, Guard::Observe),
            (self.policy.rollbacks_per_day_max <= self.rollbacks_today(now), Guard::Limit),
            // Last: freeze and limit set a hold themselves, and would be reported twice.
            (self.is_held(), Guard::Hold),
        ];
        guards.into_iter().find_map(|(stands, guard)| stands.then_some(guard))
    }

    /// A drain may become a cut, never the reverse.
    fn escalate_drain(
        &self,
        now: Moment,
        back: &Rollback,
        verdict: &Verdict,
        load: &ReleaseLoad,
    ) -> Option<Decision> {
        if !matches!(verdict.finding, Finding::Breach(_)) {
            return None;
        }
        let drain_left = back.drain_until.since(now);
        let choice = strategy::choose_strategy(verdict, load, drain_left, self.policy.session_cost);
        (choice.strategy == Strategy::Cut).then(|| {
            let because = format!("{} is {} now: {}", back.bad, verdict.finding, choice.reason);
            self.decide(now, TimelineEvent::Escalated(Some(choice.reason)), because)
        })
    }

    /// Another program runs in place of the active release: it bakes like any deploy, with the
    /// warm release as rollback target. While traffic moves, or a rollback is under way, it only counts as
    /// behaviour of the release.
    fn on_replaced(
        &self,
        now: Moment,
        number: ReleaseNumber,
        self_reported_name: Option<&str>,
        because: &str,
    ) -> Option<Decision> {
        let (Phase::Steady { active, warm, .. } | Phase::Baking { active, warm, .. }) = &self.phase
        else {
            return None;
        };
        if active.number != number || self.phase.ramp().is_some() {
            return None;
        }
        let release = active.as_replacement(self.next_number(), self_reported_name);
        let target_hint = match warm {
            Some(warm) => format!("it bakes; {warm} can take over"),
            None => "there is no previous release to roll back to".to_owned(),
        };
        let because = format!(
            "{release} runs in place of {active}, without a deploy: {because}; {target_hint}"
        );
        let (warm, base) = (warm.clone(), Box::new(self.carried_over(now)));
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(
            now,
            TimelineEvent::Replaced { release, warm, carried_over: base },
            because,
        );
        decision.effects.push(page);
        Some(decision)
    }

    fn on_probe_result(&self, now: Moment, reply: &ProbeResult) -> Option<Decision> {
        let Phase::Confirming(breach) = &self.phase else { return None };
        match reply {
            ProbeResult::Ok => Some(self.start_rollback(now, breach, "answers")),
            ProbeResult::TimedOut | ProbeResult::Refused | ProbeResult::Unexpected(_) => {
                let because = format!("{} does not answer ({reply}); restarting it", breach.warm);
                Some(self.decide(now, TimelineEvent::Reviving, because))
            }
        }
    }

    /// A changed artifact is no rollback target, unless an operator forces it.
    fn on_artifact_changed(&self, now: Moment, why: &str) -> Option<Decision> {
        match &self.phase {
            Phase::Confirming(breach) | Phase::Reviving(breach) if breach.trigger.is_forced() => {
                let because = format!(
                    "the artifact of {} changed: {why}; forced by the operator",
                    breach.warm
                );
                Some(self.decide(now, TimelineEvent::Noted, because))
            }
            Phase::Confirming(breach) | Phase::Reviving(breach) => {
                let why = format!(
                    "the artifact of {} changed: {why} (--changed-artifact overrides)",
                    breach.warm
                );
                Some(self.abandon(now, breach, &why))
            }
            _ => None,
        }
    }

    /// The traffic stays, and the operator is paged.
    pub(super) fn abandon(&self, now: Moment, breach: &PendingRollback, why: &str) -> Decision {
        let because = match breach.ramp {
            Some(_) => format!(
                "{why}; {} keeps the traffic, and {} the sessions that it has",
                breach.warm, breach.bad
            ),
            None => format!("{why}; the traffic stays on {}", breach.bad),
        };
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, TimelineEvent::Abandoned, because);
        decision.effects.push(page);
        decision
    }

    pub(super) fn start_rollback(
        &self,
        now: Moment,
        breach: &PendingRollback,
        target_state: &str,
    ) -> Decision {
        let choice = match &breach.trigger {
            Trigger::Operator { strategy, .. } => {
                StrategyChoice { strategy: *strategy, reason: StrategyReason::Ordered }
            }
            Trigger::Verdict(verdict) => strategy::choose_strategy(
                verdict,
                &breach.load,
                self.policy.drain_timeout,
                self.policy.session_cost,
            ),
        };
        let because = format!("{} {target_state}; {choice}", breach.warm);
        self.decide(now, breach.decided_event(choice), because)
    }

    fn on_routed(&self, now: Moment) -> Option<Decision> {
        match &self.phase {
            Phase::Promoting { from, to, .. } => {
                let because = match (from, self.phase.ramp()) {
                    (Some(from), Some(ramp)) => {
                        format!("{to} has {}, {from} keeps the others", ramp.step)
                    }
                    (Some(from), None) => format!("{to} has the traffic, {from} stays warm"),
                    (None, _) => format!("{to} has the traffic"),
                };
                Some(self.decide(now, TimelineEvent::Switched { to: to.number }, because))
            }
            Phase::Returning(back) => {
                let because = format!("{} has the traffic", back.to);
                Some(self.decide(now, TimelineEvent::Switched { to: back.to.number }, because))
            }
            _ => None,
        }
    }

    fn on_nothing_in_flight(&self, now: Moment, cost: DrainCost) -> Option<Decision> {
        let Phase::Emptying(back) = &self.phase else { return None };
        let because = format!("{} has nothing in flight: {cost}", back.bad);
        let fact = match back.strategy {
            Strategy::Drain => TimelineEvent::Drained { cost },
            Strategy::Cut => TimelineEvent::Cut { cost },
        };
        Some(self.decide(now, fact, because))
    }

    fn accept(&self, now: Moment, verified: bool, traffic_summary: &str) -> Decision {
        if matches!(self.phase, Phase::Baking { warm: None, .. }) {
            let because = "accepted: the first release, without a rollback target".to_owned();
            return self.decide(now, TimelineEvent::Accepted { verified }, because);
        }
        let minutes = self.policy.bake.as_secs_f64() / 60.0;
        let how = if verified { "accepted" } else { "accepted (unverified), too little evidence" };
        let because = format!("{how} after {minutes:.1} min: {traffic_summary}");
        self.decide(now, TimelineEvent::Accepted { verified }, because)
    }

    fn on_deadline(&self, now: Moment) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { .. } | Phase::Reviving(_) => {
                let waited = now.since(self.since).as_secs();
                self.on_not_ready(now, &format!("not ready within {waited} s"))
            }
            Phase::Confirming(_) => self.on_probe_result(now, &ProbeResult::TimedOut),
            Phase::Promoting { tries, .. } => Some(self.retry_effects(now, *tries)),
            Phase::Returning(back) => Some(self.retry_effects(now, back.tries)),
            Phase::Emptying(back) if back.strategy == Strategy::Drain => {
                let because = format!("the drain of {} did not end in time", back.bad);
                Some(self.decide(now, TimelineEvent::Escalated(None), because))
            }
            Phase::Emptying(back) => Some(self.retry_effects(now, back.tries)),
            Phase::Recovering { .. } => {
                self.on_not_recovered(now, "no requests and no good probes")
            }
            // The bake ends with the verdict of the next block.
            Phase::Empty | Phase::Steady { .. } | Phase::Baking { .. } => None,
        }
    }

    fn retry_effects(&self, now: Moment, tries: u32) -> Decision {
        let because = format!("no answer from the proxy after {tries} tries");
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, TimelineEvent::Retried { tries }, because);
        if tries == self.policy.page_after_tries {
            decision.effects.push(page);
        }
        decision
    }
}
