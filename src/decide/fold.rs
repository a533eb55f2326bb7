//! How a fact moves the state. The same code runs when a fact has just been written down and when
//! a timeline is read back.

use std::time::Duration;

use crate::model::{
    Base, Entry, Fact, Guard, Hold, Load, Moment, Number, Release, Severity, Strategy, Ticket,
    Verdict,
};

use super::{Breach, Phase, Return, Watch};

/// The window of the rollback limit.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Releases that a quarantine remembers, newest last.
const QUARANTINE_MAX: usize = 100;

impl Watch {
    /// Folds a timeline. `now` is when the daemon reads it: time in between was not watched, so
    /// deadlines move by it, and by the same time at each restart before.
    pub fn restore(policy: super::Policy, entries: &[Entry], now: Moment) -> Self {
        let mut watch = Self::new(policy);
        let mut last = entries.first().map_or(now, |first| first.moment);
        for entry in entries {
            if let Fact::Restored { .. } = entry.fact {
                watch.phase.rebase(entry.moment.since(last));
            }
            watch.deploy = entry.deploy;
            watch.apply(entry.moment, &entry.fact);
            last = entry.moment;
        }
        watch.phase.rebase(now.since(last));
        watch
    }

    /// Makes a fact true.
    pub fn apply(&mut self, now: Moment, fact: &Fact) {
        if let Some(phase) = self.next(now, fact) {
            let anew = matches!(fact, Fact::Found { .. });
            if anew || phase.name() != self.phase.name() {
                self.since = now;
            }
            self.phase = phase;
        }
        self.remember(now, fact);
        if asks(fact) {
            self.ticket = Ticket(self.ticket.0 + 1);
        }
    }

    /// The phase that a fact leads to. A fact that does not fit the phase, as it could stand in a
    /// timeline that somebody edited, changes nothing.
    fn next(&self, now: Moment, fact: &Fact) -> Option<Phase> {
        self.forward(now, fact)
            .or_else(|| self.trial(now, fact))
            .or_else(|| self.backward(now, fact))
    }

    /// A new release starts, and gets the traffic.
    fn forward(&self, now: Moment, fact: &Fact) -> Option<Phase> {
        let policy = &self.policy;
        Some(match (fact, self.phase.clone()) {
            (Fact::Deployed { release, base, .. }, _) => {
                let (active, new) = (base.active.clone(), release.clone());
                Phase::Starting { active, new, until: now + policy.start }
            }
            (Fact::Found { release, warm, .. }, _) => self.bake(now, release.clone(), warm.clone()),
            (Fact::Ready { .. }, Phase::Starting { active, new, .. }) => {
                let until = now + policy.retry;
                Phase::Promoting { from: active, to: new, until, tries: 1 }
            }
            (Fact::Failed, Phase::Starting { active, .. }) => rest(active, None),
            (Fact::Switched { .. }, Phase::Promoting { from: warm, to: active, .. }) => {
                self.bake(now, active, warm)
            }
            (Fact::AskedAgain { tries }, phase) => self.again(now, phase, *tries)?,
            _ => return None,
        })
    }

    fn bake(&self, now: Moment, active: Release, warm: Option<Release>) -> Phase {
        // Without a release to go back to there is nothing to watch for.
        let bake = if warm.is_some() { self.policy.bake } else { Duration::ZERO };
        Phase::Baking { active, warm, until: now + bake, blocked: None, blind: None }
    }

    /// A release is on trial.
    fn trial(&self, now: Moment, fact: &Fact) -> Option<Phase> {
        Some(match (fact, self.phase.clone()) {
            (Fact::Accepted { .. }, Phase::Baking { active, warm, .. }) => {
                Phase::Steady { active, warm }
            }
            (Fact::Blocked { guard, .. }, Phase::Baking { active, warm, until, blind, .. }) => {
                let until = seen_until(until, blind, now);
                let blind = (*guard == Guard::NoData).then_some(now);
                Phase::Baking { active, warm, until, blocked: Some(*guard), blind }
            }
            (
                Fact::Cleared | Fact::Resumed { .. },
                Phase::Baking { active, warm, until, blind, .. },
            ) => {
                let until = seen_until(until, blind, now).max(now);
                Phase::Baking { active, warm, until, blocked: None, blind: None }
            }
            (Fact::Detected { verdict, load, order, forced }, _) => {
                let ordered = order.as_ref().map(|(_, strategy)| *strategy);
                self.confirm(now, verdict.clone(), *load, (ordered, *forced))?
            }
            // Hands off means now: what a person ordered stays, what the judge began ends.
            (Fact::Held { .. }, Phase::Confirming(breach) | Phase::Reviving(breach))
                if breach.ordered.is_none() =>
            {
                let (active, warm) = (breach.bad, Some(breach.warm));
                let until = now + self.policy.bake;
                Phase::Baking { active, warm, until, blocked: Some(Guard::Hold), blind: None }
            }
            _ => return None,
        })
    }

    /// The traffic goes back.
    fn backward(&self, now: Moment, fact: &Fact) -> Option<Phase> {
        let policy = &self.policy;
        Some(match (fact, self.phase.clone()) {
            (Fact::Reviving, Phase::Confirming(breach)) => {
                // Two minutes count from the finding, whatever the start of a release may take.
                let until = (now + policy.start).min(breach.latest);
                Phase::Reviving(Breach { until, ..breach })
            }
            (Fact::Abandoned, Phase::Confirming(breach) | Phase::Reviving(breach)) => {
                Phase::Steady { active: breach.bad, warm: Some(breach.warm) }
            }
            (Fact::Decided { strategy, .. }, Phase::Confirming(it) | Phase::Reviving(it)) => {
                Phase::Returning(self.back(now, it, *strategy))
            }
            (Fact::Switched { .. }, Phase::Returning(back)) => {
                Phase::Emptying(Return { until: back.drained_by + policy.retry, tries: 1, ..back })
            }
            (Fact::Escalated, Phase::Emptying(back)) => Phase::Emptying(Return {
                strategy: Strategy::Cut,
                until: now + policy.retry,
                tries: 1,
                ..back
            }),
            (Fact::Drained { .. } | Fact::Cut { .. }, Phase::Emptying(back)) => {
                let until = now + policy.recover;
                Phase::Recovering { active: back.to, bad: back.bad, until }
            }
            (Fact::Recovered, Phase::Recovering { active, .. }) => rest(Some(active), None),
            // The bad release may be the better one after all: a person can go back to it.
            (Fact::Unrecovered, Phase::Recovering { active, bad, .. }) => {
                rest(Some(active), Some(bad))
            }
            _ => return None,
        })
    }

    fn confirm(
        &self,
        now: Moment,
        verdict: Option<Verdict>,
        load: Load,
        (ordered, forced): (Option<Strategy>, bool),
    ) -> Option<Phase> {
        let (Phase::Baking { active: bad, warm: Some(warm), .. }
        | Phase::Steady { active: bad, warm: Some(warm) }) = &self.phase
        else {
            return None;
        };
        Some(Phase::Confirming(Breach {
            bad: bad.clone(),
            warm: warm.clone(),
            verdict,
            load,
            ordered,
            forced,
            latest: now + self.policy.latest,
            until: now + self.policy.confirm,
        }))
    }

    fn back(&self, now: Moment, breach: Breach, strategy: Strategy) -> Return {
        let drained_by = match strategy {
            Strategy::Drain => (now + self.policy.drain).min(breach.latest).max(now),
            Strategy::Cut => now,
        };
        let until = now + self.policy.retry;
        Return { bad: breach.bad, to: breach.warm, strategy, drained_by, until, tries: 1 }
    }

    fn again(&self, now: Moment, phase: Phase, tries: u32) -> Option<Phase> {
        let wait = self.policy.retry * 2_u32.pow(tries.min(self.policy.tries));
        let (tries, until) = (tries + 1, now + wait);
        Some(match phase {
            Phase::Promoting { from, to, .. } => Phase::Promoting { from, to, until, tries },
            Phase::Returning(back) => Phase::Returning(Return { until, tries, ..back }),
            Phase::Emptying(back) => Phase::Emptying(Return { until, tries, ..back }),
            _ => return None,
        })
    }

    /// What outlives the phase.
    fn remember(&mut self, now: Moment, fact: &Fact) {
        match fact {
            Fact::Deployed { release, frozen, forced, strict, base, .. } => {
                self.deploy = release.number;
                (self.frozen, self.forced, self.strict) = (*frozen, *forced, *strict);
                self.base = Base::clone(base);
                let identity = release.identity();
                self.base.quarantine.retain(|known| *known != identity);
            }
            Fact::Found { release, base, .. } => {
                self.deploy = release.number;
                (self.frozen, self.forced, self.strict) = (false, false, false);
                self.base = Base::clone(base);
            }
            Fact::Decided { ordered, .. } => {
                if let Phase::Returning(back) = &self.phase {
                    let identity = back.bad.identity();
                    self.base.quarantine.retain(|known| *known != identity);
                    self.base.quarantine.push(identity);
                    let over = self.base.quarantine.len().saturating_sub(QUARANTINE_MAX);
                    self.base.quarantine.drain(..over);
                }
                self.base.rollbacks.retain(|then| now.since(*then) < DAY);
                // The limit is there to stop the daemon, not a person.
                if !ordered {
                    self.base.rollbacks.push(now);
                }
            }
            Fact::Blocked { guard: guard @ (Guard::Freeze | Guard::Limit), .. } => {
                let because = format!("{guard}: a person has to look");
                self.base.hold.get_or_insert(Hold { by: None, because });
            }
            Fact::Abandoned => {
                let because = "the previous release could not take over".to_owned();
                self.base.hold.get_or_insert(Hold { by: None, because });
            }
            Fact::Held { hold } => self.base.hold = Some(hold.clone()),
            Fact::Resumed { .. } => self.base.hold = None,
            _ => (),
        }
        self.base.active = self.phase.active().cloned();
    }

    /// What a new deploy takes over.
    pub(super) fn base(&self, now: Moment) -> Base {
        let mut base = self.base.clone();
        // What the daemon set itself is over when a person brings another release.
        base.hold = base.hold.filter(|hold| hold.by.is_some());
        base.rollbacks.retain(|then| now.since(*then) < DAY);
        base
    }

    pub(super) fn rollbacks_today(&self, now: Moment) -> usize {
        self.base.rollbacks.iter().filter(|then| now.since(**then) < DAY).count()
    }

    pub(super) fn next_number(&self) -> Number {
        Number(self.deploy.0 + 1)
    }
}

/// Whether the world is told something because of this fact, so that older answers do not count.
fn asks(fact: &Fact) -> bool {
    match fact {
        Fact::Deployed { .. }
        | Fact::Found { .. }
        | Fact::Ready { .. }
        | Fact::Failed
        | Fact::Detected { .. }
        | Fact::Reviving
        | Fact::Abandoned
        | Fact::Decided { .. }
        | Fact::Escalated
        | Fact::AskedAgain { .. }
        | Fact::Unrecovered
        | Fact::Restored { .. } => true,
        Fact::Switched { .. }
        | Fact::Accepted { .. }
        | Fact::Drained { .. }
        | Fact::Cut { .. }
        | Fact::Recovered
        | Fact::Blocked { .. }
        | Fact::Cleared
        | Fact::Held { .. }
        | Fact::Resumed { .. }
        | Fact::Noted => false,
    }
}

/// The end of a trial: time in which nothing was known of the release does not count.
fn seen_until(until: Moment, blind: Option<Moment>, now: Moment) -> Moment {
    blind.map_or(until, |since| until + now.since(since))
}

fn rest(active: Option<Release>, warm: Option<Release>) -> Phase {
    active.map_or(Phase::Empty, |active| Phase::Steady { active, warm })
}

impl Breach {
    /// What goes into the timeline with the decision.
    pub(super) fn decided(&self, strategy: Strategy) -> Fact {
        let severity: Severity = self.severity();
        Fact::Decided { strategy, severity, ordered: self.ordered.is_some() }
    }
}
