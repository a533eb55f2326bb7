//! Which service needs a person, and why.

use crate::control::Status;
use crate::incident::{DeployHistory, DeployOutcome};
use crate::model::{Guard, TimelineEvent};
use crate::web::format::plain;
use crate::web::snapshot::ServiceSnapshot;

/// How much a service needs a person, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// An operator has to act now.
    Now,
    /// An operator has to look at it.
    Soon,
    /// The daemon is at work.
    Moving,
    /// Nothing to do.
    Fine,
}

/// The level, and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attention {
    /// The level.
    pub level: Level,
    /// The reason, one sentence.
    pub reason: String,
}

impl Level {
    /// In words.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Now => "needs a person now",
            Self::Soon => "needs a look",
            Self::Moving => "in progress",
            Self::Fine => "fine",
        }
    }

    /// The class for its colour.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Soon => "soon",
            Self::Moving => "moving",
            Self::Fine => "fine",
        }
    }
}

/// The strongest reason for attention.
pub(super) fn attention(service: &ServiceSnapshot) -> Attention {
    let reasons = reasons(service);
    let strongest = reasons.into_iter().min_by_key(|it| it.level);
    strongest.unwrap_or_else(|| Attention { level: Level::Fine, reason: String::new() })
}

/// Everything that speaks for attention.
pub(super) fn reasons(service: &ServiceSnapshot) -> Vec<Attention> {
    let mut reasons = Vec::new();
    let mut add = |level, reason: String| reasons.push(Attention { level, reason });
    if let Some(silent) = service.silent_for {
        let seconds = silent.as_secs();
        add(Level::Now, format!("The service loop has not answered for {seconds} s; see the log."));
    }
    let Some(status) = service.status.as_deref() else {
        if service.silent_for.is_none() {
            add(Level::Moving, "The daemon reads the timeline.".to_owned());
        }
        return reasons;
    };
    if let Some(error) = &status.error {
        add(Level::Now, format!("Error: {}", plain(error)));
    }
    match service.blocking_guard().filter(|_| status.phase == "baking") {
        Some(Guard::NoData) => {
            add(Level::Soon, "No data about the release; the bake waits for it.".to_owned());
        }
        Some(guard) => {
            add(Level::Now, format!("A breach is not rolled back. {}", guard_words(guard)));
        }
        None => (),
    }
    if is_rollback_unfinished(service.entries.iter().map(|entry| &entry.event)) {
        add(Level::Now, "The last rollback did not succeed; see the timeline.".to_owned());
    }
    if let Some(hold) = &status.hold {
        let level = if hold.ends_with("(set by the daemon)") { Level::Now } else { Level::Soon };
        add(level, format!("Held: {}. `rollbackd resume` ends it.", plain(hold)));
    }
    if status.journal_lost > 0 {
        let lost = status.journal_lost;
        let text = format!("{lost} messages did not reach the log; the timeline has them all.");
        add(Level::Soon, text);
    }
    add_reviews(status, &mut add);
    add_deploy(service, status, &mut add);
    reasons
}

/// What the reviews of incidents and the notification say.
fn add_reviews(status: &Status, add: &mut impl FnMut(Level, String)) {
    let service = &status.service;
    if let Some(incidents) = &status.incidents {
        if let Some(number) = incidents.unacknowledged {
            let text = format!("Incident {number} waits for a person; `rollbackd ack {service}`.");
            add(Level::Now, text);
        }
        if incidents.overdue {
            let text = format!("The review of incident {} is overdue.", incidents.oldest.0);
            add(Level::Soon, text);
        }
    }
    for channel in status.channels.iter().filter(|it| it.failing_s.is_some()) {
        add(Level::Soon, format!("Notification channel {} fails.", plain(&channel.name)));
    }
    if let Some(error) = &status.notify_error {
        add(Level::Soon, format!("Notices can be lost: {}.", plain(error)));
    }
}

/// What the newest deploy and the phase say.
fn add_deploy(service: &ServiceSnapshot, status: &Status, add: &mut impl FnMut(Level, String)) {
    let phase = status.phase.as_str();
    if !matches!(phase, "steady" | "empty") {
        add(Level::Moving, format!("{}.", capitalized(&plain(&status.waits_for))));
        return;
    }
    let Some(deploy) = service.deploys.first().map(DeployHistory::row) else { return };
    let version = plain(&deploy.version).into_owned();
    let because = plain(&deploy.because);
    match deploy.outcome {
        DeployOutcome::RolledBack => {
            add(Level::Soon, format!("{version} was rolled back: {because}."))
        }
        DeployOutcome::Failed => add(Level::Soon, format!("{version} got no traffic: {because}.")),
        DeployOutcome::Running
        | DeployOutcome::Accepted
        | DeployOutcome::Unverified
        | DeployOutcome::RolledBackByOperator
        | DeployOutcome::Breach
        | DeployOutcome::Incomplete => (),
    }
}

/// Whether the last rollback failed, and nothing changed since: what is noted after it changes nothing.
fn is_rollback_unfinished<'a>(events: impl DoubleEndedIterator<Item = &'a TimelineEvent>) -> bool {
    let changes_state = |event: &&TimelineEvent| {
        !matches!(
            event,
            TimelineEvent::Notified { .. }
                | TimelineEvent::Acknowledged { .. }
                | TimelineEvent::Reloaded { .. }
                | TimelineEvent::Restored { .. }
                | TimelineEvent::Noted
        )
    };
    let last = events.rev().find(changes_state);
    matches!(last, Some(TimelineEvent::Unrecovered | TimelineEvent::Abandoned))
}

/// What a guard means, and how a person goes on.
pub(super) fn guard_words(guard: Guard) -> &'static str {
    match guard {
        Guard::Observe => {
            "`mode = \"observe\"`: the daemon records and does not act; `rollbackd rollback` does."
        }
        Guard::Hold => "An operator holds the service; `rollbackd resume` or `rollback` goes on.",
        Guard::Freeze => "The deploy was made with --freeze; `rollbackd rollback` goes back.",
        Guard::Limit => {
            "The rollbacks of one day are used up; `rollbackd rollback` goes back, then `resume`."
        }
        Guard::SharedOutage => {
            "Both releases fail, so the deploy is not the cause; look behind them."
        }
        Guard::NoBaseline => "There is nothing to compare the release with; decide by its errors.",
        Guard::NoData => "A required source reports no data about the release.",
        Guard::Ramp => {
            "The bake is over before the ramp; `rollbackd promote` accepts, `rollback` goes back."
        }
        Guard::OneUser => "One user fails and others are served; `rollbackd rollback` goes back.",
        Guard::Differs => {
            "It answers, but not as the release before; compare them, `rollbackd rollback` goes back."
        }
        Guard::AfterBake => {
            "Its bake is over, so a person decides; `rollbackd rollback` goes back while the previous release runs."
        }
        Guard::NoWarm => "There is no previous release to go back to; deploy a good one.",
    }
}

/// The first letter in upper case.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_does_not_hide_that_a_rollback_failed() {
        let notified = TimelineEvent::Notified { channel: "chat".into(), notice: "1".into() };
        let is_unfinished = |events: &[TimelineEvent]| is_rollback_unfinished(events.iter());
        assert!(is_unfinished(&[TimelineEvent::Abandoned, notified.clone(), TimelineEvent::Noted]));
        assert!(is_unfinished(&[TimelineEvent::Unrecovered]));
        assert!(!is_unfinished(&[TimelineEvent::Abandoned, TimelineEvent::Recovered, notified]));
        assert!(!is_unfinished(&[]));
    }
}
