//! What the world tells, and what follows from it.

use crate::decide::{PendingRollback, Phase, Rollback, Watch, strategy};
use crate::model::{
    ContractDiff, ContractPart, Decision, DrainCost, Effect, Event, Finding, Guard, Moment,
    ProbeResult, ReadinessReport, ReleaseLoad, ReleaseNumber, Strategy, TimelineEvent, Verdict,
};

const BREACH_ENDED: &str = "the breach is over";

impl Watch {
    /// What an event leads to. An event that means nothing here, or answers an older ticket,
    /// leads to nothing.
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
            Event::NothingInFlight(ticket, toll) if *ticket == self.ticket => {
                self.on_nothing_in_flight(now, toll.clone())
            }
            Event::Recovered(number, because) => match &self.phase {
                Phase::Recovering { active, .. } if active.number == *number => {
                    let because = format!("{active} keeps the promise again: {because}");
                    Some(self.decide(now, TimelineEvent::Recovered, because))
                }
                _ => None,
            },
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
                    // A proven breach is neither over nor accepted before somebody is blamed.
                    (Finding::Measuring, _) => None,
                    // Without a release to go back to there is nothing to wait for.
                    (Finding::NoData, blocked) if warm.is_some() => {
                        self.on_no_data(now, verdict, *blocked)
                    }
                    (Finding::Healthy | Finding::Undecided | Finding::NoData, Some(guard)) => {
                        let over =
                            if *guard == Guard::NoData { "data again" } else { BREACH_ENDED };
                        let because = format!("{guard}: {over}: {}", verdict.because);
                        Some(self.decide(now, TimelineEvent::Cleared, because))
                    }
                    (finding, None) if *until <= now && !self.is_held() => {
                        Some(self.accept(now, finding == Finding::Healthy, &verdict.because))
                    }
                    _ => None,
                }
            }
            Phase::Emptying(back @ Rollback { strategy: Strategy::Drain, .. })
                if back.bad.number == verdict.release =>
            {
                self.escalate_drain(now, back, verdict, load)
            }
            _ => None,
        }
    }

    /// A verdict against the release on trial meets the guards, the gravest first.
    fn on_breach(
        &self,
        now: Moment,
        verdict: &Verdict,
        load: &ReleaseLoad,
        blocked: Option<Guard>,
    ) -> Option<Decision> {
        let Phase::Baking { active, warm, .. } = &self.phase else { return None };
        let because = format!("{active} is {}: {}", verdict.finding, verdict.because);
        match self.blocking_guard(now, verdict, warm.is_some()) {
            Some(guard) if blocked == Some(guard) => None,
            Some(guard) => {
                let because = format!("{because}; no rollback: {guard}");
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
                let (verdict, load) = (Some(verdict.clone()), *load);
                let fact = TimelineEvent::Detected { verdict, load, order: None, forced: false };
                Some(self.decide(now, fact, because))
            }
        }
    }

    /// No data is neither good nor bad: the trial waits, and a person is told.
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
        let because = format!("{}; the bake waits for it: {guard}", verdict.because);
        let page = Effect::Page(because.clone());
        let verdict = verdict.clone();
        let mut decision = self.decide(now, TimelineEvent::Blocked { guard, verdict }, because);
        decision.effects.push(page);
        Some(decision)
    }

    fn blocking_guard(&self, now: Moment, verdict: &Verdict, warm: bool) -> Option<Guard> {
        let guards = [
            (verdict.finding == Finding::SharedOutage, Guard::SharedOutage),
            (!warm, Guard::NoWarm),
            (verdict.finding == Finding::Unattributed, Guard::NoBaseline),
            (self.frozen, Guard::Freeze),
            (self.policy.observe, Guard::Observe),
            (self.policy.rollbacks_per_day_max <= self.rollbacks_today(now), Guard::Limit),
            // Last: what stands above sets a hold itself, and would be told twice.
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
            let because = format!("{} is {} now: {}", back.bad, verdict.finding, choice.because);
            self.decide(now, TimelineEvent::Escalated, because)
        })
    }

    /// Something else runs in place of the active release: it is on trial like any deploy, with the
    /// warm release to go back to. While traffic moves, or a rollback is under way, it only counts as
    /// what the release does.
    fn on_replaced(
        &self,
        now: Moment,
        number: ReleaseNumber,
        self_reported_name: Option<&str>,
        because: &str,
    ) -> Option<Decision> {
        let (Phase::Steady { active, warm } | Phase::Baking { active, warm, .. }) = &self.phase
        else {
            return None;
        };
        if active.number != number {
            return None;
        }
        let release = active.as_replacement(self.next_number(), self_reported_name);
        let target_hint = match warm {
            Some(warm) => format!("it is on trial; {warm} can take over"),
            None => "there is no previous release to go back to".to_owned(),
        };
        let because = format!(
            "in place of {active} another release runs, as {release}: {because}; {target_hint}"
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

    fn on_ready(&self, now: Moment, report: &ReadinessReport) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { active, new, .. } => {
                let dropped: Vec<_> = match (&report.new, active) {
                    (Some(contract), Some(_)) => {
                        report.protocols_in_use.difference(&contract.protocols).cloned().collect()
                    }
                    _ => Vec::new(),
                };
                if !dropped.is_empty() && !self.forced {
                    let dropped = dropped.join(", ");
                    let because = format!(
                        "{new} does not speak {dropped}, which live sessions use; --force deploys it"
                    );
                    return Some(self.decide(now, TimelineEvent::Failed, because));
                }
                let changes = report.contract_diff();
                if let Some(why) = self.strict_rejection(active.is_some(), changes.as_ref()) {
                    let because = format!("{new} {why}; --strict refuses it");
                    return Some(self.decide(now, TimelineEvent::Failed, because));
                }
                let words = changes.as_ref().map(ToString::to_string).unwrap_or_default();
                let because = format!("{new} is ready{words}");
                let contract = report.new.as_ref().map(|it| Box::new(it.for_timeline()));
                let changes = changes.map(Box::new);
                Some(self.decide(now, TimelineEvent::Ready { contract, changes }, because))
            }
            Phase::Reviving(breach) => {
                Some(self.start_rollback(now, breach, "runs again and answers"))
            }
            _ => None,
        }
    }

    /// Why `--strict` stands against a release.
    fn strict_rejection(&self, compare: bool, changes: Option<&ContractDiff>) -> Option<String> {
        match changes {
            _ if !self.strict || !compare => None,
            None => Some("can not be compared: one of the two did not tell what it offers".into()),
            Some(changes) if changes.not_compared.contains(&ContractPart::Tool) => {
                Some("can not be compared: one of the two has too many tools".into())
            }
            Some(changes) => (!changes.breaking.is_empty()).then(|| changes.breaking_summary()),
        }
    }

    fn on_not_ready(&self, now: Moment, why: &str) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { active, new, .. } => {
                let stays = match active {
                    Some(active) => format!("{active} kept the traffic"),
                    None => "nothing has the traffic".to_owned(),
                };
                let because = format!("{new} never became ready: {why}; {stays}");
                Some(self.decide(now, TimelineEvent::Failed, because))
            }
            Phase::Reviving(breach) => {
                let why = format!("{} does not answer and does not start: {why}", breach.warm);
                Some(self.abandon(now, breach, &why))
            }
            _ => None,
        }
    }

    fn on_probe_result(&self, now: Moment, reply: &ProbeResult) -> Option<Decision> {
        let Phase::Confirming(breach) = &self.phase else { return None };
        match reply {
            ProbeResult::Ok => Some(self.start_rollback(now, breach, "answers")),
            ProbeResult::TimedOut | ProbeResult::Refused | ProbeResult::Unexpected(_) => {
                let because =
                    format!("{} does not answer ({reply}), it is started again", breach.warm);
                Some(self.decide(now, TimelineEvent::Reviving, because))
            }
        }
    }

    /// What is not what was deployed is not gone back to, unless a person insists.
    fn on_artifact_changed(&self, now: Moment, why: &str) -> Option<Decision> {
        match &self.phase {
            Phase::Confirming(breach) | Phase::Reviving(breach) if breach.forced => {
                let because =
                    format!("{} is not what was deployed: {why}; a person insists", breach.warm);
                Some(self.decide(now, TimelineEvent::Noted, because))
            }
            Phase::Confirming(breach) | Phase::Reviving(breach) => {
                let why = format!(
                    "{} is not what was deployed: {why} (`rollbackd rollback --force` goes back to it \
                     all the same)",
                    breach.warm
                );
                Some(self.abandon(now, breach, &why))
            }
            _ => None,
        }
    }

    /// The traffic stays, and a person is woken.
    fn abandon(&self, now: Moment, breach: &PendingRollback, why: &str) -> Decision {
        let because = format!("{why}; the traffic stays on {}", breach.bad);
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, TimelineEvent::Abandoned, because);
        decision.effects.push(page);
        decision
    }

    fn start_rollback(
        &self,
        now: Moment,
        breach: &PendingRollback,
        target_state: &str,
    ) -> Decision {
        let chosen = match (&breach.ordered_strategy, &breach.verdict) {
            (Some(Strategy::Cut), _) => (Strategy::Cut, "a cut was ordered".to_owned()),
            (Some(Strategy::Drain), _) | (None, None) => {
                (Strategy::Drain, "no cut was ordered".to_owned())
            }
            (None, Some(verdict)) => {
                let choice = strategy::choose_strategy(
                    verdict,
                    &breach.load,
                    self.policy.drain_timeout,
                    self.policy.session_cost,
                );
                (choice.strategy, choice.because)
            }
        };
        let (strategy, why) = chosen;
        let because = format!("{} {target_state}; {strategy}: {why}", breach.warm);
        self.decide(now, breach.decided_event(strategy), because)
    }

    fn on_routed(&self, now: Moment) -> Option<Decision> {
        match &self.phase {
            Phase::Promoting { from, to, .. } => {
                let warm = from.as_ref().map(|from| format!(", {from} stays warm"));
                let because = format!("{to} has the traffic{}", warm.unwrap_or_default());
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
        if self.phase.warm().is_none() {
            let because = "accepted: the first release, there is nothing to go back to".to_owned();
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
                Some(self.decide(now, TimelineEvent::Escalated, because))
            }
            Phase::Emptying(back) => Some(self.retry_effects(now, back.tries)),
            Phase::Recovering { active, .. } => {
                let because = format!("{active} has the traffic but does not keep the promise");
                let page = Effect::Page(because.clone());
                let mut decision = self.decide(now, TimelineEvent::Unrecovered, because);
                decision.effects.push(page);
                Some(decision)
            }
            // The bake ends with the verdict of the next block.
            Phase::Empty | Phase::Steady { .. } | Phase::Baking { .. } => None,
        }
    }

    fn retry_effects(&self, now: Moment, tries: u32) -> Decision {
        let because = format!("no answer from the proxy, asked {tries} times");
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, TimelineEvent::Retried { tries }, because);
        if tries == self.policy.page_after_tries {
            decision.effects.push(page);
        }
        decision
    }
}
