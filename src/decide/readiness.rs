//! The end of a start: the release is ready, or it is not.

use crate::decide::phase::Phase;
use crate::decide::watch::Watch;
use crate::model::{ContractDiff, ContractPart, Decision, Moment, ReadinessReport, TimelineEvent};

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
                let ramp = self.policy.ramp.first().filter(|_| active.is_some());
                let part = ramp.map(|step| format!("; it gets {step}{}", stuck(report)));
                let part = part.unwrap_or_default();
                let because = format!("{new} is ready{words}{waived}{part}");
                let contract = report.new.as_ref().map(|it| Box::new(it.for_timeline()));
                let changes = changes.map(Box::new);
                Some(self.decide(now, TimelineEvent::Ready { contract, changes, ramp }, because))
            }
            Phase::Reviving(breach) => {
                Some(self.start_rollback(now, breach, "runs again and answers"))
            }
            _ => None,
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

/// The sessions that a ramp leaves out.
fn stuck(report: &ReadinessReport) -> String {
    match (report.sessions_pinned, report.sessions) {
        (0, _) => String::new(),
        (pinned, all) => format!("; {pinned} of {all} sessions cannot move and stay"),
    }
}
