//! The steps of a deploy or a rollback, and how far it is.

use std::sync::Arc;

use crate::model::{TimelineEntry, TimelineEvent};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What happens in it.
    pub name: &'static str,
    /// How far it is.
    pub state: StepState,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepState {
    /// It was done this many milliseconds after the deploy began.
    Done(u64),
    /// It is under way.
    Current,
    /// It follows.
    Ahead,
    /// The deploy ended before it.
    Skipped,
}

/// The kinds of event that end a step, and its name.
type Plan = &'static [(&'static [&'static str], &'static str)];

const DEPLOY: Plan = &[
    (&["deployed", "replaced"], "Deploy recorded"),
    (&["ready"], "Release starts and passes its probes"),
    (&["switched"], "Traffic moves to it"),
    (&["accepted"], "Bake: watched while the previous release stays warm"),
];
const REPLACED: Plan = &[
    (&["replaced"], "Another release found in the slot"),
    (&["accepted"], "Bake: watched while the previous release stays warm"),
];
const ROLLBACK: Plan = &[
    (&["deployed", "replaced"], "Deploy recorded"),
    (&["detected"], "Breach found, or rollback ordered"),
    (&["decided"], "Previous release answers; drain or cut chosen"),
    (&["switched"], "Traffic moves back"),
    (&["drained", "cut"], "Nothing left in flight on the failed release"),
    (&["recovered"], "Previous release meets its objectives"),
];
/// A rollback or a deploy ended otherwise.
const OTHER_ENDS: [&str; 3] = ["failed", "abandoned", "unrecovered"];

/// The steps of a timeline. Empty without a deploy.
pub(super) fn steps(entries: &[Arc<TimelineEntry>]) -> Vec<Step> {
    let plan = match entries.first().map(|first| &first.event) {
        None => return Vec::new(),
        Some(_) if entries.iter().any(|it| it.event.kind() == "detected") => ROLLBACK,
        Some(TimelineEvent::Replaced { .. }) => REPLACED,
        Some(TimelineEvent::Deployed { .. }) => DEPLOY,
        Some(_) => return Vec::new(),
    };
    let mut rest = entries.iter();
    let mut is_current = !entries.iter().any(|it| OTHER_ENDS.contains(&it.event.kind()));
    let steps = plan.iter().map(|(kinds, name)| {
        let mut ahead = rest.clone();
        let state = match ahead.find(|it| kinds.contains(&it.event.kind())) {
            Some(entry) => {
                rest = ahead;
                StepState::Done(entry.since_deploy_ms)
            }
            None if is_current => {
                is_current = false;
                StepState::Current
            }
            None if entries.iter().any(|it| OTHER_ENDS.contains(&it.event.kind())) => {
                StepState::Skipped
            }
            None => StepState::Ahead,
        };
        Step { name, state }
    });
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::pages::tests::entry;

    fn states(kinds: &[&str]) -> Vec<StepState> {
        let entries: Vec<_> =
            kinds.iter().zip(1..).map(|(kind, seq)| Arc::new(entry(kind, seq))).collect();
        steps(&entries).iter().map(|step| step.state).collect()
    }

    #[test]
    fn a_deploy_is_at_its_first_step_that_is_not_done() {
        use StepState::{Ahead, Current, Done, Skipped};
        assert_eq!(states(&[]), []);
        assert_eq!(states(&["deployed", "noted"]), [Done(1), Current, Ahead, Ahead]);
        assert_eq!(
            states(&["deployed", "ready", "switched"]),
            [Done(1), Done(2), Done(3), Current]
        );
        assert_eq!(states(&["deployed", "failed"]), [Done(1), Skipped, Skipped, Skipped]);
        // The first `switched` is the deploy, the second one the way back.
        assert_eq!(
            states(&["deployed", "ready", "switched", "detected", "decided"]),
            [Done(1), Done(4), Done(5), Current, Ahead, Ahead]
        );
        let all = ["deployed", "switched", "detected", "decided", "switched", "cut", "recovered"];
        assert_eq!(states(&all), [Done(1), Done(3), Done(4), Done(5), Done(6), Done(7)]);
    }
}
