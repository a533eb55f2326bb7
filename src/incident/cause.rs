//! Which events of a timeline open an incident, or add to an open one.

use serde::{Deserialize, Serialize};

use crate::model::{Finding, Guard, TimelineEntry, TimelineEvent};

/// What a page says about which nothing more is known.
pub(super) const A_PERSON_IS_NEEDED: &str = "A person is needed now.";

/// Why an incident is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The judge found a breach, and the daemon rolls back.
    Rollback,
    /// A person requested the rollback.
    OrderedRollback,
    /// A guard blocked the rollback that a breach asks for.
    GuardHeld,
    /// The release broke after it was accepted, and keeps the traffic.
    AfterBake,
    /// The release fails for one user, and serves all others: the bake goes on.
    OneUser,
    /// The release answers, but far slower than the one before or with far less: the bake goes on.
    DifferentAnswers,
    /// The bake is over before the ramp, and a person decides.
    RampIncomplete,
    /// Both releases fail.
    SharedOutage,
    /// The rollback could not finish, or the previous release fails too.
    RollbackIncomplete,
    /// The new release never became ready.
    NeverReady,
    /// The artifact of the rollback target changed.
    ArtifactChanged,
}

impl Cause {
    /// What happened, as the end of a sentence about a release.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rollback => "rolled back by the daemon",
            Self::OrderedRollback => "rolled back by an operator",
            Self::GuardHeld => "breach without a rollback: a guard held it",
            Self::AfterBake => "in breach after its bake",
            Self::OneUser => "fails for one user only, the others are served",
            Self::DifferentAnswers => "answers differently from the release before",
            Self::RampIncomplete => "the bake is over before the ramp",
            Self::SharedOutage => "shared outage: both releases fail",
            Self::RollbackIncomplete => "the rollback could not finish",
            Self::NeverReady => "the release never became ready",
            Self::ArtifactChanged => "the artifact of the previous release changed",
        }
    }

    /// What a person has to do who is paged. `guard` is the one that held a rollback back.
    pub(super) fn what_to_do(self, service: &str, guard: Option<Guard>) -> String {
        let back = format!("`rollbackd rollback {service}`");
        match self {
            Self::OneUser => "The others are served; look at the calls of that user.".to_owned(),
            Self::DifferentAnswers => {
                format!("Compare the answers of both releases; {back} goes back.")
            }
            Self::AfterBake => {
                format!("A person is needed now: {back} goes back while the previous release runs.")
            }
            Self::RampIncomplete => format!(
                "A person is needed now: `rollbackd promote {service}` accepts it, {back} goes back."
            ),
            Self::GuardHeld if guard != Some(Guard::NoWarm) => {
                format!("A person is needed now: {back} moves the traffic back.")
            }
            Self::SharedOutage => {
                "A person is needed now: going back would not help, repair what both need."
                    .to_owned()
            }
            _ => A_PERSON_IS_NEEDED.to_owned(),
        }
    }

    /// Whether the judge found a breach of the release.
    pub fn is_verdict_against_release(self) -> bool {
        matches!(self, Self::Rollback | Self::GuardHeld)
    }

    /// Whether the service kept a release that fails its clients.
    pub(super) fn is_breach(self) -> bool {
        matches!(self, Self::GuardHeld | Self::AfterBake | Self::SharedOutage)
    }

    /// Whether this event leaves something to a person that the daemon does not do by itself.
    pub fn needs_person(self) -> bool {
        match self {
            Self::GuardHeld
            | Self::AfterBake
            | Self::OneUser
            | Self::DifferentAnswers
            | Self::RampIncomplete
            | Self::SharedOutage
            | Self::RollbackIncomplete
            | Self::ArtifactChanged => true,
            Self::Rollback | Self::OrderedRollback | Self::NeverReady => false,
        }
    }
}

/// The cause that an event gives, if it opens an incident.
pub fn cause_of(entry: &TimelineEntry) -> Option<Cause> {
    Some(match &entry.event {
        TimelineEvent::Detected { trigger, .. } if trigger.is_operator() => Cause::OrderedRollback,
        TimelineEvent::Detected { .. } => Cause::Rollback,
        // Missing data is no breach: it pages, and the bake waits.
        TimelineEvent::Blocked { guard: Guard::NoData, .. } => return None,
        TimelineEvent::Blocked { guard: Guard::AfterBake, .. } => Cause::AfterBake,
        TimelineEvent::Blocked { guard: Guard::OneUser, .. } => Cause::OneUser,
        TimelineEvent::Blocked { guard: Guard::Differs, .. } => Cause::DifferentAnswers,
        TimelineEvent::Blocked { guard: Guard::Ramp, .. } => Cause::RampIncomplete,
        TimelineEvent::Blocked { guard: Guard::SharedOutage, .. } => Cause::SharedOutage,
        TimelineEvent::Blocked { verdict, .. } if verdict.finding == Finding::SharedOutage => {
            Cause::SharedOutage
        }
        TimelineEvent::Blocked { .. } => Cause::GuardHeld,
        TimelineEvent::Abandoned if entry.because.starts_with("the artifact of") => {
            Cause::ArtifactChanged
        }
        TimelineEvent::Abandoned | TimelineEvent::Unrecovered => Cause::RollbackIncomplete,
        // An operator who ends a start by hand has no incident.
        TimelineEvent::Failed if !was_aborted(&entry.because) => Cause::NeverReady,
        _ => return None,
    })
}

/// Whether an operator ended the start. What the release wrote comes later in the sentence.
pub(super) fn was_aborted(because: &str) -> bool {
    after_release(because).starts_with("aborted by ")
}

/// Whether an operator ended the bake.
pub(super) fn was_promoted(because: &str) -> bool {
    after_release(because).starts_with("promoted by ")
}

/// What follows the release that a sentence begins with: `VERSION ...`, or `VERSION (deploy 4) ...`. A
/// version has no space.
fn after_release(because: &str) -> &str {
    let rest = because.split_once(' ').map_or("", |(_, rest)| rest);
    let deploy = rest.strip_prefix("(deploy ").and_then(|it| it.split_once(") "));
    deploy.map_or(rest, |(_, rest)| rest)
}

/// Whether the facts are complete after this event, so that the draft can be written.
pub fn completes_draft(event: &TimelineEvent) -> bool {
    matches!(
        event,
        TimelineEvent::Recovered
            | TimelineEvent::Unrecovered
            | TimelineEvent::Abandoned
            | TimelineEvent::Blocked { .. }
            | TimelineEvent::Cleared
            | TimelineEvent::Failed
            | TimelineEvent::Accepted { .. }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::incident::{
        DraftText, HumanParts, build, example, html, markdown, notice_of, notice_of_draft,
    };
    use crate::model::{Basis, ObjectiveNumbers, Rule};

    /// What people read: the notice of the event, the draft, its notice.
    fn texts(facts: &crate::incident::Facts) -> Vec<String> {
        let incident = example::incident_of(facts);
        let document = build(&incident, facts, HumanParts::default(), &[]);
        let notices = facts.timeline.iter().filter_map(|it| notice_of(it, "v2"));
        let mut texts: Vec<_> =
            notices.map(|it| format!("{:?} {}: {}", it.kind, it.title, it.text)).collect();
        let last = facts.timeline.last().unwrap();
        let draft = notice_of_draft(&incident, last, DraftText::from(&document));
        texts.extend(draft.map(|it| format!("{:?} {}: {}", it.kind, it.title, it.text)));
        texts.push(markdown::render(&document));
        texts.push(html::render(&document));
        texts
    }

    #[test]
    fn one_user_that_fails_is_no_breach_that_a_guard_held() {
        let mut facts = example::facts();
        example::fail_for_one_user(&mut facts);
        let cause = cause_of(&facts.timeline[3]).unwrap();
        assert!(!cause.is_verdict_against_release());
        for text in texts(&facts).into_iter().skip(1) {
            for false_claim in ["guard held", "the bad release keeps", "breach"] {
                assert!(!text.contains(false_claim), "{false_claim} in {text}");
            }
            assert!(text.contains("12 of 40 of one user, 0 of 300 of all others"), "{text}");
            assert!(text.contains("others are served"), "{text}");
            assert!(text.contains("look at the calls of that user"), "{text}");
        }
        assert!(texts(&facts)[1].contains("Page v2: fails for one user only"), "told at once");
    }

    #[test]
    fn a_user_that_still_fails_when_the_release_is_accepted_is_not_resolved() {
        let mut facts = example::facts();
        example::fail_for_one_user(&mut facts);
        let accepted = json!({"kind": "accepted", "data": {"verified": false}});
        let mut over = facts.clone();
        example::then(&mut facts, "v2 is accepted", accepted.clone());
        let told = texts(&facts);
        assert!(told.iter().all(|it| !it.starts_with("Resolved")), "{told:#?}");
        assert!(
            told.iter().any(|it| it.contains("A person has to look at the calls of that user"))
        );
        // That user is served again: told once, and the draft knows.
        example::then(&mut over, "one user: over", json!({"kind": "cleared"}));
        example::then(&mut over, "v2 is accepted", accepted);
        let told = texts(&over);
        assert_eq!(told.iter().filter(|it| it.starts_with("Resolved")).count(), 1, "{told:#?}");
        assert!(told.iter().all(|it| !it.contains("A person has to look")), "{told:#?}");
        assert!(told.iter().any(|it| it.contains("It is over; review by 2023-11-17")), "{told:#?}");
    }

    #[test]
    fn a_ramp_that_takes_longer_than_the_bake_is_no_breach() {
        let mut facts = example::facts();
        example::block(&mut facts, Guard::Ramp);
        let cause = cause_of(&facts.timeline[3]).unwrap();
        assert!(cause.needs_person() && !cause.is_verdict_against_release());
        let mut promoted = facts.clone();
        let accepted = json!({"kind": "accepted", "data": {"verified": false}});
        example::then(&mut promoted, "v2 promoted by root (pid 7): enough seen", accepted);
        let told = texts(&promoted);
        assert!(told.iter().any(|it| it.contains("It is over; review by")), "{told:#?}");
        assert!(!told.last().unwrap().contains("A person decides"), "{told:#?}");
        let promote = "rollbackd promote weather";
        assert!(texts(&facts).iter().any(|it| it.contains(&format!("`{promote}` accepts it"))
            || it.contains(&format!("\\`{promote}\\` accepts it"))));
    }

    #[test]
    fn a_rollback_after_a_held_breach_settles_it() {
        let facts = example::facts();
        let mut incident = example::incident();
        incident.causes.insert(0, (Cause::SharedOutage, incident.opened, String::new()));
        let document = build(&incident, &facts, HumanParts::default(), &[]);
        assert_eq!(document.title, "v2 rolled back to v1");
        assert!(document.headline.ends_with("Nothing to do tonight; review by 2023-11-17."));
        let [badly] = document.went_badly.as_slice() else { panic!("{:?}", document.went_badly) };
        assert!(badly.starts_with("shared outage"), "{badly}");
    }

    #[test]
    fn a_rollback_to_the_same_version_names_the_deploys() {
        let mut incident = example::incident();
        incident.version = "v1".to_owned();
        let document = build(&incident, &example::facts(), HumanParts::default(), &[]);
        let (now, before) = (incident.number, example::facts().previous_release().unwrap().number);
        let title = format!("v1 (deploy {now}) rolled back to v1 (deploy {before})");
        assert_eq!(document.title, title);
    }

    #[test]
    fn a_breach_after_the_bake_counts_what_failed_then() {
        let mut facts = example::facts();
        let accepted = json!({"kind": "accepted", "data": {"verified": true}});
        example::block(&mut facts, Guard::AfterBake);
        let mut breach = facts.timeline.pop().unwrap();
        if let TimelineEvent::Blocked { verdict, .. } = &mut breach.event {
            let objective = Some(ObjectiveNumbers {
                name: "availability".to_owned(),
                requests: 318,
                bad: 62,
                allowed: 0.005,
                allowed_as_before: false,
                e_value: 3_000.0,
                threshold: 2_000.0,
            });
            verdict.basis = Some(Box::new(Basis { objective, ..Basis::of(Rule::BrokenObjective) }));
        }
        example::then(&mut facts, "v2 is accepted", accepted);
        let planned_effects = vec!["page".to_owned()];
        facts.timeline.push(TimelineEntry { seq: 9, planned_effects, ..breach });
        let impact = crate::incident::impact(&facts);
        assert_eq!((impact.server_faults, impact.requests), (62, 318));
        let of_breach = |text: &String| !text.contains(": accepted: ");
        for text in texts(&facts).into_iter().skip(1).filter(of_breach) {
            assert!(text.contains("in breach after its bake"), "{text}");
            assert!(text.contains("62 of 318 requests"), "{text}");
            // The draft does not claim that no more failed.
            let is_draft = text.contains("# Post-mortem") || text.contains("<html");
            assert!(!is_draft || text.contains("failed up to the verdict"), "{text}");
            assert!(!text.contains("guard held"), "{text}");
            assert!(text.contains("goes back"), "{text}");
        }
    }

    #[test]
    fn before_the_facts_are_gathered_nothing_is_claimed() {
        let facts =
            crate::incident::Facts { schema: example::facts().schema, ..Default::default() };
        let document = build(&example::incident(), &facts, HumanParts::default(), &[]);
        for text in [markdown::render(&document), html::render(&document)] {
            assert!(text.contains("the facts are being gathered"), "{text}");
            for claim in ["no session was lost", "no client request", "on record", " days:"] {
                assert!(!text.contains(claim), "{claim}: {text}");
            }
        }
    }
}
