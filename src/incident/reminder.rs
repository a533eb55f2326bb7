//! What is due: reviews that stay open, action items past their date, settings that are not as an action
//! item wants them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::incident::action::Action;
use crate::incident::life::Incident;
use crate::incident::notice::{Notice, NoticeKind};
use crate::incident::phrases::final_cause;
use crate::incident::utc::{format_ms, parse_date};
use crate::model::Moment;

/// After the first reminder, the next ones come once a week.
const REMIND_AGAIN: Duration = Duration::from_hours(24 * 7);
/// An item is overdue when its day is over.
const DAY: Duration = Duration::from_hours(24);
/// Action items that one text names.
const ITEMS_MAX: usize = 5;

/// Something about an action item that a deploy should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The item.
    pub item: u32,
    /// What about it, in a sentence.
    pub text: String,
    /// Whether it was marked as done and is not so.
    pub reopens: bool,
}

/// Whether a review has been open for longer than it may.
pub fn is_overdue(incident: &Incident, now: Moment, within: Duration) -> bool {
    incident.is_open() && within < now.since(incident.opened)
}

/// Whether a reminder is due: of an open review, or of overdue action items.
pub fn is_reminder_due(incident: &Incident, now: Moment, after: Duration) -> bool {
    let is_about_something =
        is_overdue(incident, now, after) || overdue_items(incident, now).next().is_some();
    is_about_something && incident.reminders.1.is_none_or(|last| REMIND_AGAIN <= now.since(last))
}

/// The notice of a reminder.
pub fn notice_of_reminder(incident: &Incident, at: (&str, Moment)) -> Notice {
    let (service, number, now) = (&incident.service, incident.number, at.1);
    let mut parts = Vec::new();
    if incident.is_open() {
        let age = u64::try_from(now.since(incident.opened).as_millis()).unwrap_or(u64::MAX);
        parts.push(format!(
            "the review of incident {number} ({}: {}) has been open for {}",
            incident.version,
            final_cause(incident).label(),
            format_ms(age)
        ));
    }
    let items: Vec<_> = overdue_items(incident, now)
        .take(ITEMS_MAX)
        .map(|it| format!("{number}-{} {} ({}, {})", it.item, it.text, it.owner, it.due))
        .collect();
    if !items.is_empty() {
        parts.push(format!("action items are overdue: {}", items.join("; ")));
    }
    let command = match incident.is_open() {
        true => format!("rollbackd postmortem {service} {number} --edit"),
        false => format!("rollbackd action list {service}"),
    };
    let title = format!("incident {number} waits for its review");
    let title =
        if incident.is_open() { title } else { format!("action items of incident {number}") };
    let event = format!("reminder-{}", incident.reminders.0 + 1);
    let mut notice = Notice::new(NoticeKind::Reminder, service, number, &event)
        .text(&title, &format!("{service}: {}. `{command}`", parts.join("; ")))
        .at(at.0, now)
        .command(command.clone());
    notice.version.clone_from(&incident.version);
    notice
}

/// Items that are not done and whose day is over.
fn overdue_items(incident: &Incident, now: Moment) -> impl Iterator<Item = &Action> {
    incident
        .actions
        .iter()
        .filter(move |it| !it.done && parse_date(&it.due).is_some_and(|due| due + DAY <= now))
}

/// What a deploy should know of the action items of an incident. `settings` are those of the service, as
/// the configuration writes them. An item names one with the check `NAME = VALUE`; `normal` brings the
/// value into the form of `settings`.
pub fn follow_up(
    incident: &Incident,
    settings: &BTreeMap<String, String>,
    normal: impl Fn(&str) -> String,
    now: Moment,
) -> Vec<FollowUp> {
    let number = incident.number;
    let mut found = Vec::new();
    for action in &incident.actions {
        let name = format!("action {number}-{} ({})", action.item, action.text);
        let text = match wanted_setting(&action.check, settings) {
            Some((_, wanted, value)) if normal(wanted) == value => continue,
            Some((key, wanted, value)) if action.done => {
                format!("{name} is marked as done, but {key} is {value}, not {wanted}")
            }
            Some((key, wanted, value)) => {
                format!("{name} is still not so: {key} is {value}, not {wanted}")
            }
            None if overdue_items(incident, now).any(|it| it.item == action.item) => {
                format!("{name} is overdue since {}, for {}", action.due, action.owner)
            }
            None => continue,
        };
        found.push(FollowUp { item: action.item, text, reopens: action.done });
    }
    found
}

/// The setting that a check names: its key, the wanted value, the present value.
fn wanted_setting<'a>(
    check: &'a str,
    settings: &'a BTreeMap<String, String>,
) -> Option<(&'a str, &'a str, &'a str)> {
    let (key, wanted) = check.split_once('=')?;
    let (key, wanted) = (key.trim(), wanted.trim().trim_matches('"'));
    Some((key, wanted, settings.get(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::action::ActionKind;
    use crate::incident::example;

    const HOUR: Duration = Duration::from_hours(1);

    fn incident(check: &str, done: bool) -> Incident {
        let mut incident = example::incident();
        incident.actions = vec![Action {
            item: 1,
            kind: ActionKind::Mitigate,
            text: "drain faster".to_owned(),
            owner: "team weather".to_owned(),
            due: "2023-11-20".to_owned(),
            check: check.to_owned(),
            link: String::new(),
            done,
        }];
        incident
    }

    #[test]
    fn a_reminder_comes_after_its_time_and_then_weekly() {
        let mut incident = example::incident();
        let opened = incident.opened;
        let due = |incident: &Incident, hours: u32| {
            is_reminder_due(incident, opened + HOUR * hours, HOUR * 72)
        };
        assert!(!due(&incident, 72) && due(&incident, 73));
        incident.reminders = (1, Some(opened + HOUR * 73));
        assert!(!due(&incident, 73 + 167) && due(&incident, 73 + 168));
        let notice = notice_of_reminder(&incident, ("", opened + HOUR * 73));
        assert_eq!(
            (notice.kind, notice.id.as_str()),
            (NoticeKind::Reminder, "weather/2/reminder-2")
        );
        assert!(notice.text.contains("has been open for 3 days"), "{}", notice.text);
        incident.state = crate::incident::IncidentState::Closed;
        assert!(!due(&incident, 1_000), "a closed review is done");
    }

    #[test]
    fn an_action_item_past_its_day_is_a_reminder_also_of_a_closed_incident() {
        let mut incident = incident("", false);
        incident.state = crate::incident::IncidentState::Closed;
        let after = parse_date("2023-11-21").unwrap();
        let before = Moment(after.0 - 1);
        assert!(!is_reminder_due(&incident, before, HOUR));
        assert!(is_reminder_due(&incident, after, HOUR));
        let notice = notice_of_reminder(&incident, ("", after));
        assert!(
            notice.text.contains("2-1 drain faster (team weather, 2023-11-20)"),
            "{}",
            notice.text
        );
    }

    #[test]
    fn a_deploy_hears_of_items_that_are_not_so() {
        let settings = [("drain_timeout".to_owned(), "30s".to_owned())].into();
        let texts = |check: &str, done| {
            let normal = |it: &str| it.replace("30000ms", "30s");
            let found = follow_up(&incident(check, done), &settings, normal, Moment(0));
            found.into_iter().map(|it| (it.text, it.reopens)).collect::<Vec<_>>()
        };
        assert_eq!(
            texts("drain_timeout = 10s", false),
            [(
                "action 2-1 (drain faster) is still not so: drain_timeout is 30s, not 10s".into(),
                false
            )]
        );
        let done = texts("drain_timeout = \"10s\"", true);
        assert!(done[0].0.contains("is marked as done, but drain_timeout is 30s") && done[0].1);
        assert!(texts("drain_timeout = 30s", false).is_empty());
        assert!(texts("drain_timeout = \"30000ms\"", false).is_empty());
        assert!(texts("the graph is flat", false).is_empty());
        let late = parse_date("2023-12-01").unwrap();
        let late = follow_up(&incident("", false), &settings, str::to_owned, late);
        assert!(late[0].text.contains("is overdue since 2023-11-20, for team weather"));
    }
}
