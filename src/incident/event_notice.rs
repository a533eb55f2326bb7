//! Which event of a timeline becomes which message.

use crate::incident::cause::{A_PERSON_IS_NEEDED, Cause, cause_of, was_promoted};
use crate::incident::notice::{Notice, NoticeKind, TITLE_MAX};
use crate::incident::text::clean_text;
use crate::model::{TimelineEntry, TimelineEvent};

/// The effect of a timeline entry that pages a person.
const PAGE_EFFECT: &str = "page";

/// The notice of an event, if people are notified of it. `version` is the version of the deploy.
pub fn notice_of(entry: &TimelineEntry, version: &str) -> Option<Notice> {
    let (kind, title, todo) = classify(entry)?;
    let todo = match kind {
        NoticeKind::Page => to_do_of_page(entry),
        _ => todo.to_owned(),
    };
    let TimelineEntry { service, deploy, seq, because, .. } = entry;
    let text = format!("{service}: {because}. {todo}");
    let mut notice = Notice::new(kind, service, *deploy, &seq.to_string())
        .text(&format!("{version}: {title}"), &text)
        .at(&entry.wall_time, entry.moment)
        .command(format!("rollbackd timeline {service}"));
    notice.version = clean_text(version, TITLE_MAX);
    if kind == NoticeKind::Resolved {
        notice.resolves = vec![NoticeKind::Page];
    }
    Some(notice)
}

/// The kind of an event, what it is, and what to do.
fn classify(entry: &TimelineEntry) -> Option<(NoticeKind, &'static str, &'static str)> {
    use NoticeKind::{Info, Page, Resolved, Warn};
    const NOTHING: &str = "Nothing to do.";
    let cause = cause_of(entry);
    if entry.planned_effects.iter().any(|it| it == PAGE_EFFECT) {
        let title = match &entry.event {
            TimelineEvent::Replaced { .. } => "exchanged without a deploy",
            TimelineEvent::Retried { .. } => "the traffic does not move",
            _ => cause.map_or("the daemon cannot go on by itself", Cause::label),
        };
        return Some((Page, title, A_PERSON_IS_NEEDED));
    }
    Some(match (&entry.event, cause) {
        (TimelineEvent::Detected { .. }, Some(Cause::OrderedRollback)) => {
            (Info, "an operator rolls back", NOTHING)
        }
        (TimelineEvent::Detected { .. }, _) => {
            (Warn, "rolling back", "rollbackd moves the traffic back. Nothing to do now.")
        }
        (TimelineEvent::Failed, Some(cause)) => {
            (Warn, cause.label(), "The traffic did not move; nothing to do now.")
        }
        // In observe mode a breach is recorded, and pages no one.
        (TimelineEvent::Blocked { .. }, _) => {
            (Info, "breach, not rolled back", "The daemon only observes.")
        }
        (TimelineEvent::Cleared, _) => (Resolved, "the breach is over", NOTHING),
        (TimelineEvent::Deployed { .. }, _) => (Info, "deployed", NOTHING),
        (TimelineEvent::Accepted { .. }, _) if was_promoted(&entry.because) => {
            (Info, "promoted by an operator", NOTHING)
        }
        (TimelineEvent::Accepted { verified: true }, _) => (Info, "accepted", NOTHING),
        // There is nothing to compare it with, whatever its traffic.
        (TimelineEvent::Accepted { .. }, _) if entry.because.contains("the first release") => {
            (Info, "accepted", NOTHING)
        }
        (TimelineEvent::Accepted { verified: false }, _) => {
            (Info, "accepted (unverified)", "There was not enough traffic to judge it.")
        }
        _ => return None,
    })
}

/// What a person has to do who is paged for an event.
fn to_do_of_page(entry: &TimelineEntry) -> String {
    let guard = match &entry.event {
        TimelineEvent::Blocked { guard, .. } => Some(*guard),
        _ => None,
    };
    let cause = cause_of(entry);
    cause.map_or(A_PERSON_IS_NEEDED.to_owned(), |it| it.what_to_do(&entry.service, guard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Guard;

    #[test]
    fn an_event_that_pages_is_a_page() {
        let mut facts = example::facts();
        example::block(&mut facts, Guard::NoWarm);
        let mut entry = facts.timeline.pop().unwrap();
        assert_eq!(notice_of(&entry, "v2").unwrap().kind, NoticeKind::Info, "observe mode");
        entry.planned_effects = vec!["page".to_owned()];
        let page = notice_of(&entry, "v2").unwrap();
        assert_eq!(page.kind, NoticeKind::Page);
        assert!(page.text.ends_with("A person is needed now."), "{}", page.text);
    }

    #[test]
    fn a_page_names_the_command_that_helps() {
        for (guard, todo) in [
            (Guard::Hold, "`rollbackd rollback weather` moves the traffic back."),
            (Guard::Limit, "`rollbackd rollback weather` moves the traffic back."),
            (Guard::AfterBake, "`rollbackd rollback weather` goes back while the previous"),
            (Guard::Ramp, "`rollbackd promote weather` accepts it, `rollbackd rollback weather`"),
            (Guard::SharedOutage, "going back would not help"),
        ] {
            let mut facts = example::facts();
            example::block(&mut facts, guard);
            let mut entry = facts.timeline.pop().unwrap();
            entry.planned_effects = vec!["page".to_owned()];
            let text = notice_of(&entry, "v2").unwrap().text;
            assert!(text.contains(todo), "{guard}: {text}");
        }
    }

    #[test]
    fn only_a_release_that_was_judged_had_too_little_traffic() {
        let accepted = serde_json::json!({"kind": "accepted", "data": {"verified": false}});
        for (because, title, is_judged) in [
            ("accepted: the first release, without a rollback target", "v2: accepted", false),
            ("v2 promoted by root (pid 7): enough seen", "v2: promoted by an operator", false),
            ("v2 (deploy 3) promoted by root (pid 7)", "v2: promoted by an operator", false),
            ("accepted (unverified), too little evidence", "v2: accepted (unverified)", true),
        ] {
            let mut facts = example::facts();
            example::then(&mut facts, because, accepted.clone());
            let notice = notice_of(facts.timeline.last().unwrap(), "v2").unwrap();
            assert_eq!(notice.title, title);
            assert_eq!(notice.text.contains("not enough traffic"), is_judged, "{}", notice.text);
        }
    }

    #[test]
    fn what_a_release_wrote_is_masked() {
        let mut entry =
            example::failed_start("v2 failed: password=hunter2\u{1b}[31m <b>").remove(1);
        let notice = notice_of(&entry, "v2").unwrap();
        assert!(!notice.text.contains("hunter2") && !notice.text.contains('\u{1b}'));
        for aborted in [
            "v2 aborted by root (pid 7): no reason given; v1 kept the traffic",
            "v2 aborted by uid 1000 (pid 7)",
            "v2 (deploy 3) aborted by root (pid 7): no reason given; v2 (deploy 2) kept the traffic",
        ] {
            entry.because = aborted.to_owned();
            assert_eq!(notice_of(&entry, "v2"), None, "{aborted}");
        }
        entry.because = "v2 never became ready: connection aborted by peer".to_owned();
        assert!(notice_of(&entry, "v2").is_some());
    }
}
