//! What the world tells, and what follows from it.

use crate::model::{
    Changes, Decision, Effect, Event, Fact, Finding, Guard, Load, Moment, Number, Part, Readiness,
    Reply, Strategy, Toll, Verdict,
};

use super::{Breach, Phase, Return, Watch, strategy};

const BREACH_OVER: &str = "the breach is over";

impl Watch {
    /// What an event leads to. An event that means nothing here, or answers an older ticket,
    /// leads to nothing.
    pub fn step(&self, now: Moment, event: &Event) -> Option<Decision> {
        match event {
            Event::Judged(verdict, load) => self.judged(now, verdict, load),
            Event::Found(number, named, because) => {
                self.found(now, *number, named.as_deref(), because)
            }
            Event::Ready(ticket, ready) if *ticket == self.ticket => self.ready(now, ready),
            Event::NotReady(ticket, why) if *ticket == self.ticket => self.not_ready(now, why),
            Event::Probed(ticket, reply) if *ticket == self.ticket => self.probed(now, reply),
            Event::Spoiled(ticket, why) if *ticket == self.ticket => self.spoiled(now, why),
            Event::Routed(ticket) if *ticket == self.ticket => self.routed(now),
            Event::Emptied(ticket, toll) if *ticket == self.ticket => {
                self.emptied(now, toll.clone())
            }
            Event::Recovered(number, because) => match &self.phase {
                Phase::Recovering { active, .. } if active.number == *number => {
                    let because = format!("{active} keeps the promise again: {because}");
                    Some(self.decide(now, Fact::Recovered, because))
                }
                _ => None,
            },
            Event::Due if self.deadline().is_some_and(|due| due <= now) => self.due(now),
            _ => None,
        }
    }

    fn judged(&self, now: Moment, verdict: &Verdict, load: &Load) -> Option<Decision> {
        match &self.phase {
            Phase::Baking { active, warm, until, blocked, .. }
                if active.number == verdict.release =>
            {
                match (verdict.finding, blocked) {
                    (Finding::Breach(_) | Finding::SharedOutage | Finding::Unattributed, _) => {
                        self.breached(now, verdict, load, *blocked)
                    }
                    // A proven breach is neither over nor accepted before somebody is blamed.
                    (Finding::Measuring, _) => None,
                    // Without a release to go back to there is nothing to wait for.
                    (Finding::NoData, blocked) if warm.is_some() => {
                        self.out_of_sight(now, verdict, *blocked)
                    }
                    (Finding::Healthy | Finding::Undecided | Finding::NoData, Some(guard)) => {
                        let over = if *guard == Guard::NoData { "data again" } else { BREACH_OVER };
                        let because = format!("{guard}: {over}: {}", verdict.because);
                        Some(self.decide(now, Fact::Cleared, because))
                    }
                    (finding, None) if *until <= now && !self.held() => {
                        Some(self.accept(now, finding == Finding::Healthy, &verdict.because))
                    }
                    _ => None,
                }
            }
            Phase::Emptying(back @ Return { strategy: Strategy::Drain, .. })
                if back.bad.number == verdict.release =>
            {
                self.rejudged(now, back, verdict, load)
            }
            _ => None,
        }
    }

    /// A verdict against the release on trial meets the guards, the gravest first.
    fn breached(
        &self,
        now: Moment,
        verdict: &Verdict,
        load: &Load,
        blocked: Option<Guard>,
    ) -> Option<Decision> {
        let Phase::Baking { active, warm, .. } = &self.phase else { return None };
        let because = format!("{active} is {}: {}", verdict.finding, verdict.because);
        match self.guard(now, verdict, warm.is_some()) {
            Some(guard) if blocked == Some(guard) => None,
            Some(guard) => {
                let because = format!("{because}; no rollback: {guard}");
                let verdict = verdict.clone();
                let page = Effect::Page(because.clone());
                let mut decision = self.decide(now, Fact::Blocked { guard, verdict }, because);
                if guard != Guard::Observe {
                    decision.then.push(page);
                }
                Some(decision)
            }
            None => {
                let (verdict, load) = (Some(verdict.clone()), *load);
                let fact = Fact::Detected { verdict, load, order: None, forced: false };
                Some(self.decide(now, fact, because))
            }
        }
    }

    /// No data is neither good nor bad: the trial waits, and a person is told.
    fn out_of_sight(
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
        let mut decision = self.decide(now, Fact::Blocked { guard, verdict }, because);
        decision.then.push(page);
        Some(decision)
    }

    fn guard(&self, now: Moment, verdict: &Verdict, warm: bool) -> Option<Guard> {
        let guards = [
            (verdict.finding == Finding::SharedOutage, Guard::SharedOutage),
            (!warm, Guard::NoWarm),
            (verdict.finding == Finding::Unattributed, Guard::NoBaseline),
            (self.frozen, Guard::Freeze),
            (self.policy.observe, Guard::Observe),
            (self.policy.rollbacks_per_day <= self.rollbacks_today(now), Guard::Limit),
            // Last: what stands above sets a hold itself, and would be told twice.
            (self.held(), Guard::Hold),
        ];
        guards.into_iter().find_map(|(stands, guard)| stands.then_some(guard))
    }

    /// A drain may become a cut, never the reverse.
    fn rejudged(
        &self,
        now: Moment,
        back: &Return,
        verdict: &Verdict,
        load: &Load,
    ) -> Option<Decision> {
        if !matches!(verdict.finding, Finding::Breach(_)) {
            return None;
        }
        let left = back.drained_by.since(now);
        let choice = strategy::choose(verdict, load, left, self.policy.session_cost);
        (choice.strategy == Strategy::Cut).then(|| {
            let because = format!("{} is {} now: {}", back.bad, verdict.finding, choice.because);
            self.decide(now, Fact::Escalated, because)
        })
    }

    /// Something else runs in place of the active release: it is on trial like any deploy, with the
    /// warm release to go back to. While traffic moves, or a rollback is under way, it only counts as
    /// what the release does.
    fn found(
        &self,
        now: Moment,
        number: Number,
        named: Option<&str>,
        because: &str,
    ) -> Option<Decision> {
        let (Phase::Steady { active, warm } | Phase::Baking { active, warm, .. }) = &self.phase
        else {
            return None;
        };
        if active.number != number {
            return None;
        }
        let release = active.replaced(self.next_number(), named);
        let back = match warm {
            Some(warm) => format!("it is on trial; {warm} can take over"),
            None => "there is no previous release to go back to".to_owned(),
        };
        let because =
            format!("in place of {active} another release runs, as {release}: {because}; {back}");
        let (warm, base) = (warm.clone(), Box::new(self.base(now)));
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, Fact::Found { release, warm, base }, because);
        decision.then.push(page);
        Some(decision)
    }

    fn ready(&self, now: Moment, ready: &Readiness) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { active, new, .. } => {
                let dropped: Vec<_> = match (&ready.new, active) {
                    (Some(contract), Some(_)) => {
                        ready.in_use.difference(&contract.protocols).cloned().collect()
                    }
                    _ => Vec::new(),
                };
                if !dropped.is_empty() && !self.forced {
                    let dropped = dropped.join(", ");
                    let because = format!(
                        "{new} does not speak {dropped}, which live sessions use; --force deploys it"
                    );
                    return Some(self.decide(now, Fact::Failed, because));
                }
                let changes = ready.changes();
                if let Some(why) = self.too_strict(active.is_some(), changes.as_ref()) {
                    let because = format!("{new} {why}; --strict refuses it");
                    return Some(self.decide(now, Fact::Failed, because));
                }
                let words = changes.as_ref().map(ToString::to_string).unwrap_or_default();
                let because = format!("{new} is ready{words}");
                let contract = ready.new.as_ref().map(|it| Box::new(it.brief()));
                let changes = changes.map(Box::new);
                Some(self.decide(now, Fact::Ready { contract, changes }, because))
            }
            Phase::Reviving(breach) => Some(self.go_back(now, breach, "runs again and answers")),
            _ => None,
        }
    }

    /// Why `--strict` stands against a release.
    fn too_strict(&self, compare: bool, changes: Option<&Changes>) -> Option<String> {
        match changes {
            _ if !self.strict || !compare => None,
            None => Some("can not be compared: one of the two did not tell what it offers".into()),
            Some(changes) if changes.unknown.contains(&Part::Tool) => {
                Some("can not be compared: one of the two has too many tools".into())
            }
            Some(changes) => (!changes.breaks.is_empty()).then(|| changes.broken()),
        }
    }

    fn not_ready(&self, now: Moment, why: &str) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { active, new, .. } => {
                let stays = match active {
                    Some(active) => format!("{active} kept the traffic"),
                    None => "nothing has the traffic".to_owned(),
                };
                let because = format!("{new} never became ready: {why}; {stays}");
                Some(self.decide(now, Fact::Failed, because))
            }
            Phase::Reviving(breach) => {
                let why = format!("{} does not answer and does not start: {why}", breach.warm);
                Some(self.abandon(now, breach, &why))
            }
            _ => None,
        }
    }

    fn probed(&self, now: Moment, reply: &Reply) -> Option<Decision> {
        let Phase::Confirming(breach) = &self.phase else { return None };
        match reply {
            Reply::Ok => Some(self.go_back(now, breach, "answers")),
            Reply::Late | Reply::Refused | Reply::Wrong(_) => {
                let because =
                    format!("{} does not answer ({reply}), it is started again", breach.warm);
                Some(self.decide(now, Fact::Reviving, because))
            }
        }
    }

    /// What is not what was deployed is not gone back to, unless a person insists.
    fn spoiled(&self, now: Moment, why: &str) -> Option<Decision> {
        match &self.phase {
            Phase::Confirming(breach) | Phase::Reviving(breach) if breach.forced => {
                let because =
                    format!("{} is not what was deployed: {why}; a person insists", breach.warm);
                Some(self.decide(now, Fact::Noted, because))
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
    fn abandon(&self, now: Moment, breach: &Breach, why: &str) -> Decision {
        let because = format!("{why}; the traffic stays on {}", breach.bad);
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, Fact::Abandoned, because);
        decision.then.push(page);
        decision
    }

    fn go_back(&self, now: Moment, breach: &Breach, fit: &str) -> Decision {
        let chosen = match (&breach.ordered, &breach.verdict) {
            (Some(Strategy::Cut), _) => (Strategy::Cut, "a cut was ordered".to_owned()),
            (Some(Strategy::Drain), _) | (None, None) => {
                (Strategy::Drain, "no cut was ordered".to_owned())
            }
            (None, Some(verdict)) => {
                let choice = strategy::choose(
                    verdict,
                    &breach.load,
                    self.policy.drain,
                    self.policy.session_cost,
                );
                (choice.strategy, choice.because)
            }
        };
        let (strategy, why) = chosen;
        let because = format!("{} {fit}; {strategy}: {why}", breach.warm);
        self.decide(now, breach.decided(strategy), because)
    }

    fn routed(&self, now: Moment) -> Option<Decision> {
        match &self.phase {
            Phase::Promoting { from, to, .. } => {
                let warm = from.as_ref().map(|from| format!(", {from} stays warm"));
                let because = format!("{to} has the traffic{}", warm.unwrap_or_default());
                Some(self.decide(now, Fact::Switched { to: to.number }, because))
            }
            Phase::Returning(back) => {
                let because = format!("{} has the traffic", back.to);
                Some(self.decide(now, Fact::Switched { to: back.to.number }, because))
            }
            _ => None,
        }
    }

    fn emptied(&self, now: Moment, toll: Toll) -> Option<Decision> {
        let Phase::Emptying(back) = &self.phase else { return None };
        let because = format!("{} has nothing in flight: {toll}", back.bad);
        let fact = match back.strategy {
            Strategy::Drain => Fact::Drained { toll },
            Strategy::Cut => Fact::Cut { toll },
        };
        Some(self.decide(now, fact, because))
    }

    fn accept(&self, now: Moment, verified: bool, tally: &str) -> Decision {
        if self.phase.warm().is_none() {
            let because = "accepted: the first release, there is nothing to go back to".to_owned();
            return self.decide(now, Fact::Accepted { verified }, because);
        }
        let minutes = self.policy.bake.as_secs_f64() / 60.0;
        let how = if verified { "accepted" } else { "accepted (unverified), too little evidence" };
        let because = format!("{how} after {minutes:.1} min: {tally}");
        self.decide(now, Fact::Accepted { verified }, because)
    }

    fn due(&self, now: Moment) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { .. } | Phase::Reviving(_) => {
                let waited = now.since(self.since).as_secs();
                self.not_ready(now, &format!("not ready within {waited} s"))
            }
            Phase::Confirming(_) => self.probed(now, &Reply::Late),
            Phase::Promoting { tries, .. } => Some(self.ask_again(now, *tries)),
            Phase::Returning(back) => Some(self.ask_again(now, back.tries)),
            Phase::Emptying(back) if back.strategy == Strategy::Drain => {
                let because = format!("the drain of {} did not end in time", back.bad);
                Some(self.decide(now, Fact::Escalated, because))
            }
            Phase::Emptying(back) => Some(self.ask_again(now, back.tries)),
            Phase::Recovering { active, .. } => {
                let because = format!("{active} has the traffic but does not keep the promise");
                let page = Effect::Page(because.clone());
                let mut decision = self.decide(now, Fact::Unrecovered, because);
                decision.then.push(page);
                Some(decision)
            }
            // The bake ends with the verdict of the next block.
            Phase::Empty | Phase::Steady { .. } | Phase::Baking { .. } => None,
        }
    }

    fn ask_again(&self, now: Moment, tries: u32) -> Decision {
        let because = format!("no answer from the proxy, asked {tries} times");
        let page = Effect::Page(because.clone());
        let mut decision = self.decide(now, Fact::AskedAgain { tries }, because);
        if tries == self.policy.tries {
            decision.then.push(page);
        }
        decision
    }
}
