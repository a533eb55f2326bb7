//! What a review found about a release: a later replay of its deploy is compared with it.

use serde::Serialize;

use crate::incident::cause::Cause;
use crate::incident::life::Incident;
use crate::incident::verdict::ReviewVerdict;

/// Whether a verdict against a release is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseLabel {
    /// A verdict against it is a false alarm.
    Good,
    /// It has to be found.
    Bad,
}

impl Incident {
    /// Whether the judge found a breach of this release, and not a person or a shared outage.
    pub fn has_verdict_against_release(&self) -> bool {
        self.causes.iter().any(|(cause, ..)| cause.is_verdict_against_release())
    }

    /// What a person found about the release. `None` before a verdict, and for a release that met no
    /// user.
    pub fn label(&self) -> Option<ReleaseLabel> {
        let verdict = self.verdict?;
        let all = |of: &[Cause]| self.causes.iter().all(|(cause, ..)| of.contains(cause));
        if all(&[Cause::NeverReady]) {
            return None;
        }
        Some(match verdict {
            ReviewVerdict::FalseAlarm | ReviewVerdict::NotTheDeploy => ReleaseLabel::Good,
            // What was right is that it is not the release: both fail, or one user only.
            ReviewVerdict::Right if all(&[Cause::SharedOutage, Cause::OneUser]) => {
                ReleaseLabel::Good
            }
            // Right was to ask; it says nothing about the release.
            ReviewVerdict::Right if all(&[Cause::RampIncomplete]) => return None,
            ReviewVerdict::Right | ReviewVerdict::Missed(_) => ReleaseLabel::Bad,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_verdict_of_a_review_labels_the_release() {
        let (good, bad) = (Some(ReleaseLabel::Good), Some(ReleaseLabel::Bad));
        for (causes, verdict, label, was_found) in [
            (&[Cause::Rollback][..], "right", bad, true),
            (&[Cause::Rollback], "false-alarm", good, true),
            (&[Cause::GuardHeld], "not-the-deploy", good, true),
            (&[Cause::OrderedRollback], "right", bad, false),
            (&[Cause::OrderedRollback], "missed=9", bad, false),
            (&[Cause::SharedOutage], "right", good, false),
            (&[Cause::SharedOutage, Cause::Rollback], "right", bad, true),
            (&[Cause::NeverReady], "right", None, false),
            (&[Cause::OneUser], "right", good, false),
            (&[Cause::OneUser], "missed=9", bad, false),
            (&[Cause::OneUser, Cause::Rollback], "right", bad, true),
            (&[Cause::RampIncomplete], "right", None, false),
        ] {
            let mut incident = example::incident();
            let at = incident.opened;
            incident.causes = causes.iter().map(|it| (*it, at, String::new())).collect();
            incident.verdict = None;
            assert_eq!(incident.label(), None);
            incident.verdict = Some(verdict.parse().unwrap());
            let found = (incident.label(), incident.has_verdict_against_release());
            assert_eq!(found, (label, was_found), "{causes:?} {verdict}");
        }
    }
}
