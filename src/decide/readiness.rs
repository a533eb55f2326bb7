//! The end of a start: the release is ready, or it is not.

use crate::decide::phase::Phase;
use crate::decide::ramp::RampSteps;
use crate::decide::watch::Watch;
use crate::model::{
    ActiveUsers, ContractDiff, ContractPart, Decision, Moment, RampChoice, RampStep,
    ReadinessReport, TimelineEvent,
};

impl Watch {
    pub(super) fn on_ready(&self, now: Moment, report: &ReadinessReport) -> Option<Decision> {
        match &self.phase {
            Phase::Starting { active, new, .. } => {
                let dropped: Vec<_> = match (&report.new, active) {
                    (Some(contract), Some(_)) => {
                        report.protocols_in_use.difference(&contract.protocols).cloned().collect()
                    }
                    _ => Vec::new(),
                };
                let dropped = dropped.join(", ");
                if !dropped.is_empty() && !self.forced {
                    let because = format!(
                        "{new} does not support {dropped}, which live sessions use; \
                         --allow-version-drop deploys it"
                    );
                    return Some(self.decide(now, TimelineEvent::Failed, because));
                }
                let waived = if dropped.is_empty() {
                    String::new()
                } else {
                    format!("; needed --allow-version-drop: live sessions use {dropped}")
                };
                let changes = report.contract_diff();
                if let Some(why) = self.strict_rejection(active.is_some(), changes.as_ref()) {
                    let because = format!("{new} {why}; --strict refuses it");
                    return Some(self.decide(now, TimelineEvent::Failed, because));
                }
                let words = changes.as_ref().map(ToString::to_string).unwrap_or_default();
                let choice = active.as_ref().map(|_| self.choose_ramp(report.users));
                let (ramp, part) = first_step(choice.as_ref(), report);
                let because = format!("{new} is ready{words}{waived}{part}");
                let contract = report.new.as_ref().map(|it| Box::new(it.for_timeline()));
                let changes = changes.map(Box::new);
                let ready = TimelineEvent::Ready { contract, changes, ramp, choice };
                Some(self.decide(now, ready, because))
            }
            Phase::Reviving(breach) => {
                Some(self.start_rollback(now, breach, "runs again and answers"))
            }
            _ => None,
        }
    }

    /// The ramp of a deploy whose release is ready now, with these users.
    pub fn choose_ramp(&self, users: ActiveUsers) -> RampChoice {
        self.policy.ramp.choose(self.policy.bake, users)
    }

    /// Keeps how long a release took to become ready, because it may take that again when it restarts,
    /// and the ramp that its deploy chose.
    pub(super) fn record_ready(&mut self, now: Moment, fact: &TimelineEvent) {
        if let (TimelineEvent::Ready { ramp, choice, .. }, Phase::Starting { active, new, .. }) =
            (fact, &self.phase)
        {
            let took = u64::try_from(now.since(self.since).as_millis()).unwrap_or(u64::MAX);
            self.carried_over.ready_ms.push((new.number, took));
            self.carried_over.ramped = ramp.is_some() && active.is_some();
            self.ramp_choice.clone_from(choice);
        }
    }

    /// Why `--strict` rejects a release.
    fn strict_rejection(&self, compare: bool, changes: Option<&ContractDiff>) -> Option<String> {
        match changes {
            _ if !self.strict || !compare => None,
            None => Some("cannot be compared: a contract is unknown".into()),
            Some(changes) if changes.not_compared.contains(&ContractPart::Tool) => {
                Some("cannot be compared: too many tools".into())
            }
            Some(changes) => (!changes.breaking.is_empty()).then(|| changes.breaking_summary()),
        }
    }

    pub(super) fn on_not_ready(&self, now: Moment, why: &str) -> Option<Decision> {
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
}

/// The first step of a ramp, and what the timeline says about it.
fn first_step(choice: Option<&RampChoice>, report: &ReadinessReport) -> (Option<RampStep>, String) {
    let Some(choice) = choice else { return (None, String::new()) };
    let reason = choice.reason.text();
    let steps = RampSteps { shares_ppm: &choice.shares_ppm, control_min: 1 };
    let text = match (steps.first(), reason) {
        (Some(step), Some(reason)) => format!("; it gets {step}: {reason}{}", stuck(report)),
        (Some(step), None) => format!("; it gets {step}{}", stuck(report)),
        (None, Some(reason)) => format!("; all users at once: {reason}"),
        (None, None) => String::new(),
    };
    (steps.first(), text)
}

/// The sessions that a ramp leaves out.
fn stuck(report: &ReadinessReport) -> String {
    match (report.sessions_pinned, report.sessions) {
        (0, _) => String::new(),
        (pinned, all) => format!("; {pinned} of {all} sessions cannot move and stay"),
    }
}
