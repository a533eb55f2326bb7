//! What else happened around a deploy: other deploys of its service, and the other services of the host.

use std::time::Duration;

use crate::incident::facts::{Facts, Reload};
use crate::incident::rows::started_at;
use crate::incident::text::{clean_name, clean_text};
use crate::incident::utc::format_time;
use crate::model::{Moment, TimelineEntry, TimelineEvent};

/// How long before the deploy, and after its last event.
const WINDOW: Duration = Duration::from_mins(30);
/// Lines of a document.
const LINES_MAX: usize = 30;
/// Reloads that are kept, the first ones.
const RELOADS_MAX: usize = 20;
/// Longest text of an event, in characters.
const TEXT_MAX: usize = 160;

/// From when to when an event counts as near.
pub fn nearby_window(facts: &Facts) -> (Moment, Moment) {
    let last = facts.timeline.last().map_or(Moment(0), |entry| entry.moment);
    (started_at(facts) - WINDOW, last + WINDOW)
}

/// The events of other timelines that are near, in the order of time. Of too many, those that are
/// nearest to the first verdict, or else to the deploy.
pub fn nearby(facts: &Facts, others: impl IntoIterator<Item = TimelineEntry>) -> Vec<String> {
    let (from, until) = nearby_window(facts);
    let decided = facts.timeline.iter().find(|entry| entry.event.verdict().is_some());
    let center = decided.map_or_else(|| started_at(facts), |entry| entry.moment);
    let near = others.into_iter().filter(|entry| (from..=until).contains(&entry.moment));
    let mut near: Vec<_> = near.filter(|entry| tells_something(&entry.event)).collect();
    near.sort_by_key(|entry| entry.moment.0.abs_diff(center.0));
    near.truncate(LINES_MAX);
    near.sort_by(|a, b| {
        (a.moment, &a.service, a.deploy, a.seq).cmp(&(b.moment, &b.service, b.deploy, b.seq))
    });
    near.iter().map(line).collect()
}

/// The reloads of the service that are near: in the timeline of the deploy, and in those before it.
pub fn reloads(facts: &Facts, others: &[TimelineEntry]) -> Vec<Reload> {
    let service = facts.timeline.first().map(|it| it.service.as_str());
    let (from, until) = nearby_window(facts);
    let all = facts
        .timeline
        .iter()
        .chain(others.iter().filter(|it| Some(it.service.as_str()) == service));
    let mut reloads: Vec<_> = all
        .filter(|entry| (from..=until).contains(&entry.moment))
        .filter_map(|entry| match &entry.event {
            TimelineEvent::Reloaded { now, next_deploy } => {
                let (now, next_deploy) = (now.clone(), next_deploy.clone());
                Some(Reload { at: entry.moment, now, next_deploy })
            }
            _ => None,
        })
        .collect();
    reloads.sort_by_key(|it| it.at);
    reloads.truncate(RELOADS_MAX);
    reloads
}

fn line(entry: &TimelineEntry) -> String {
    let (at, service) = (format_time(entry.moment), clean_name(&entry.service));
    let (kind, because) = (entry.event.kind(), clean_text(&entry.because, TEXT_MAX));
    format!("{at} {service}, deploy {}: {kind}: {because}", entry.deploy)
}

/// Whether an event tells a reader of another incident something. What the whole daemon saw, such as a
/// pause of the host, is in the timeline of each service.
fn tells_something(event: &TimelineEvent) -> bool {
    match event {
        TimelineEvent::Deployed { .. }
        | TimelineEvent::Replaced { .. }
        | TimelineEvent::Failed
        | TimelineEvent::Accepted { .. }
        | TimelineEvent::Detected { .. }
        | TimelineEvent::Blocked { .. }
        | TimelineEvent::Cleared
        | TimelineEvent::Abandoned
        | TimelineEvent::Recovered
        | TimelineEvent::Unrecovered
        | TimelineEvent::Held { .. }
        | TimelineEvent::Resumed { .. }
        | TimelineEvent::Reloaded { .. }
        | TimelineEvent::Noted => true,
        TimelineEvent::Ready { .. }
        | TimelineEvent::Switched { .. }
        | TimelineEvent::Stepped { .. }
        | TimelineEvent::Reviving
        | TimelineEvent::Decided { .. }
        | TimelineEvent::Escalated(_)
        | TimelineEvent::Drained { .. }
        | TimelineEvent::Cut { .. }
        | TimelineEvent::Retried { .. }
        | TimelineEvent::Restored { .. }
        | TimelineEvent::Paused { .. }
        | TimelineEvent::Notified { .. }
        | TimelineEvent::Acknowledged { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::ReleaseNumber;

    /// An event of another service, in milliseconds after the deploy.
    fn event(after_ms: i64, event: TimelineEvent) -> TimelineEntry {
        let mut entry = example::facts().timeline.remove(0);
        entry.moment = Moment(example::BEGAN.checked_add_signed(after_ms).unwrap());
        (entry.service, entry.deploy, entry.event) = ("mail".to_owned(), ReleaseNumber(14), event);
        entry.because = "a process exited, token=Zx81kkQpLm2".to_owned();
        entry
    }

    #[test]
    fn events_of_half_an_hour_around_are_told_in_order() {
        let facts = example::facts();
        let others = [
            event(5_000, TimelineEvent::Noted),
            event(-60_000, TimelineEvent::Failed),
            event(6_000, TimelineEvent::Reviving),
            event(-31 * 60_000, TimelineEvent::Noted),
            event(32 * 60_000, TimelineEvent::Noted),
        ];
        let expected = [
            "2023-11-14 22:12:20Z mail, deploy 14: failed: a process exited, token=[masked]",
            "2023-11-14 22:13:25Z mail, deploy 14: noted: a process exited, token=[masked]",
        ];
        assert_eq!(nearby(&facts, others), expected);
    }

    #[test]
    fn reloads_of_the_service_are_told_and_kept_with_their_keys() {
        let mut facts = example::facts();
        let reloaded = |key: &str| TimelineEvent::Reloaded {
            now: vec![key.to_owned()],
            next_deploy: Vec::new(),
        };
        let mut before = event(-60_000, reloaded("limits.body"));
        before.service = "weather".to_owned();
        before.because = "the configuration was reloaded: limits.body now".to_owned();
        let others = [before, event(-50_000, reloaded("bake"))];
        let mut own = facts.timeline[2].clone();
        own.event = reloaded("mode");
        facts.timeline.insert(3, own);
        let keys: Vec<_> = reloads(&facts, &others).into_iter().map(|it| it.now).collect();
        assert_eq!(keys, [["limits.body"], ["mode"]]);
        let lines = nearby(&facts, others);
        let wanted =
            "weather, deploy 14: reloaded: the configuration was reloaded: limits.body now";
        assert!(lines[0].ends_with(wanted), "{lines:?}");
    }

    #[test]
    fn of_very_many_the_nearest_to_the_verdict_are_told() {
        let facts = example::facts();
        let others = (0..1_000).map(|it| event(it * 1_000 - 500_000, TimelineEvent::Noted));
        let lines = nearby(&facts, others);
        assert_eq!(lines.len(), LINES_MAX);
        assert!(lines.first().is_some_and(|it| it.starts_with("2023-11-14 22:13:1")), "{lines:?}");
    }
}
