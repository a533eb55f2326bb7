//! What people are notified of: which event becomes which message.
//!
//! The same event always gives the same notice with the same id, so that an event that is read twice,
//! after a crash, makes one notice.

use serde::{Deserialize, Serialize};

use crate::incident::cause::Cause;
use crate::incident::document::PostMortem;
use crate::incident::error_rate_chart::ErrorRateChart;
use crate::incident::life::Incident;
use crate::incident::phrases::final_cause;
use crate::incident::text::clean_text;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};

/// The form of the JSON. A later version only adds fields.
pub const NOTICE_SCHEMA: &str = "rollbackd.notice/1";
/// Longest text of a notice, in characters.
const TEXT_MAX: usize = 600;
/// Longest title of a notice, in characters.
pub(super) const TITLE_MAX: usize = 160;

/// How much a notice matters.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A person is needed now.
    Page,
    /// Something went wrong, and the daemon handled it.
    Warn,
    /// Something happened as intended.
    #[default]
    Info,
    /// What was reported before is over.
    Resolved,
    /// A review or an action item is due.
    Reminder,
}

/// A message for people, the same for every channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// [`NOTICE_SCHEMA`].
    pub schema: String,
    /// Identifies it: a repeated delivery has the same id.
    pub id: String,
    /// What belongs together: the notices of one incident have the same group.
    pub group: String,
    /// How much it matters.
    pub kind: NoticeKind,
    /// Of `resolved`: the kinds that it ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolves: Vec<NoticeKind>,
    /// Whether a person acknowledged the page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub acknowledged: bool,
    /// Whether it is an example of `notify test`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// The host.
    pub host: String,
    /// The service; empty where it is about the daemon.
    pub service: String,
    /// The deploy, which is the number of its incident.
    pub incident: ReleaseNumber,
    /// The version that was deployed; empty where it is not known.
    pub version: String,
    /// When it happened: RFC 3339, UTC.
    pub at: String,
    /// The same on the daemon's clock.
    pub moment: Moment,
    /// What happened, in a few words.
    pub title: String,
    /// The first line: service, what happened, who is affected, whether a person is needed.
    pub text: String,
    /// Requests that failed, and all of them; none where that is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(u64, u64)>,
    /// The error rate of both releases over time; none where that is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRateChart>,
    /// The command that shows more.
    pub command: String,
    /// The status page of the service, if it has a public address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl NoticeKind {
    /// All kinds, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Page, Self::Warn, Self::Info, Self::Resolved, Self::Reminder];

    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Resolved => "resolved",
            Self::Reminder => "reminder",
        }
    }
}

impl Notice {
    /// A notice about a service. `event` tells the notices of one deploy apart.
    pub fn new(kind: NoticeKind, service: &str, deploy: ReleaseNumber, event: &str) -> Self {
        Self {
            schema: NOTICE_SCHEMA.to_owned(),
            id: format!("{service}/{deploy}/{event}"),
            group: format!("{service}/{deploy}"),
            kind,
            service: service.to_owned(),
            incident: deploy,
            ..Self::default()
        }
    }

    /// Sets the texts. What a release wrote is shortened and masked.
    #[must_use]
    pub fn text(mut self, title: &str, text: &str) -> Self {
        self.title = clean_text(title, TITLE_MAX);
        self.text = clean_text(text, TEXT_MAX);
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn at(mut self, wall_time: &str, moment: Moment) -> Self {
        (self.at, self.moment) = (wall_time.to_owned(), moment);
        self
    }

    /// Sets the command that shows more.
    #[must_use]
    pub fn command(mut self, command: String) -> Self {
        self.command = command;
        self
    }

    /// Whether a channel with these kinds takes it. A notice that ends others goes where they went.
    pub fn is_for(&self, kinds: &[NoticeKind]) -> bool {
        let ends_something_known = || self.resolves.iter().any(|it| kinds.contains(it));
        match self.kind {
            NoticeKind::Resolved if !self.resolves.is_empty() => {
                kinds.contains(&NoticeKind::Resolved) && ends_something_known()
            }
            kind => kinds.contains(&kind),
        }
    }
}

/// The notice of a log message that needs a person. The same message is one notice an hour. `service` is
/// empty where it is about the daemon.
pub fn notice_of_page(service: &str, text: &str, (wall_time, moment): (&str, Moment)) -> Notice {
    const HOUR_MS: u64 = 60 * 60 * 1_000;
    let about = if service.is_empty() { "rollbackd" } else { service };
    let line = format!("{about}: {text}. A person is needed now.");
    let mut notice = Notice::new(NoticeKind::Page, service, ReleaseNumber(0), "")
        .text("the daemon needs a person", &line)
        .at(wall_time, moment)
        .command("rollbackd status".to_owned());
    notice.group = format!("log/{:016x}", fnv1a(line.as_bytes()));
    notice.id = format!("{}/{}", notice.group, moment.0 / HOUR_MS);
    notice
}

/// FNV-1a, 64 bits: tells texts apart, and is the same after a restart.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// What a notice takes over from a draft.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DraftText {
    /// What happened, in a few words.
    pub title: String,
    /// The same in one line, with the numbers.
    pub headline: String,
    /// The error rate over time.
    pub error_rate: Option<ErrorRateChart>,
}

impl From<&PostMortem> for DraftText {
    fn from(document: &PostMortem) -> Self {
        Self {
            title: document.title.clone(),
            headline: document.headline.clone(),
            error_rate: ErrorRateChart::of(&document.error_rate),
        }
    }
}

/// The notice of a draft: the trouble is over, and the review is open. None while a person is needed,
/// of which the event made a notice.
pub fn notice_of_draft(
    incident: &Incident,
    entry: &TimelineEntry,
    draft: DraftText,
) -> Option<Notice> {
    if !matches!(entry.event, TimelineEvent::Recovered | TimelineEvent::Accepted { .. }) {
        return None;
    }
    // The release is accepted also while that user fails, or the answers differ.
    if matches!(final_cause(incident), Cause::OneUser | Cause::DifferentAnswers) {
        return None;
    }
    let (service, number) = (&incident.service, incident.number);
    let mut notice = Notice::new(NoticeKind::Resolved, service, number, &entry.seq.to_string())
        .text(&draft.title, &draft.headline)
        .at(&entry.wall_time, entry.moment)
        .command(format!("rollbackd postmortem {service} {number}"));
    notice.error_rate = draft.error_rate;
    // The event itself can have a notice of its own.
    notice.id.push_str("/draft");
    notice.version.clone_from(&incident.version);
    notice.failed = Some(incident.failed);
    notice.resolves = kinds_before(incident);
    Some(notice)
}

/// The notice of an acknowledgement.
pub fn notice_of_acknowledgement(incident: &Incident, at: (&str, Moment)) -> Notice {
    let (service, number) = (&incident.service, incident.number);
    let text = format!("{service}: a person takes care of incident {number}.");
    let event = format!("acknowledged-{}", at.1.0);
    let mut notice = Notice::new(NoticeKind::Page, service, number, &event)
        .text(&format!("incident {number} is acknowledged"), &text)
        .at(at.0, at.1)
        .command(format!("rollbackd postmortem {service} {number}"));
    notice.acknowledged = true;
    notice.version.clone_from(&incident.version);
    notice
}

/// The notice that ends what no later event of the deploy ends: the review of the incident is closed.
pub fn notice_of_close(incident: &Incident, at: (&str, Moment)) -> Option<Notice> {
    let ends_by_itself = |cause: Cause| matches!(cause, Cause::Rollback | Cause::OrderedRollback);
    if incident.causes.iter().all(|(cause, ..)| ends_by_itself(*cause)) {
        return None;
    }
    let (service, number) = (&incident.service, incident.number);
    let event = format!("closed-{}", at.1.0);
    let text = format!("{service}: incident {number} is closed. Nothing to do.");
    let mut notice = Notice::new(NoticeKind::Resolved, service, number, &event)
        .text(&format!("incident {number} is closed"), &text)
        .at(at.0, at.1)
        .command(format!("rollbackd postmortem {service} {number}"));
    notice.version.clone_from(&incident.version);
    notice.resolves = kinds_before(incident);
    Some(notice)
}

/// The kinds of the notices that the causes of an incident had.
fn kinds_before(incident: &Incident) -> Vec<NoticeKind> {
    let mut kinds: Vec<_> = incident
        .causes
        .iter()
        .map(|(cause, ..)| match cause {
            cause if cause.needs_person() => NoticeKind::Page,
            Cause::OrderedRollback => NoticeKind::Info,
            _ => NoticeKind::Warn,
        })
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::event_notice::notice_of;
    use crate::incident::example;

    fn kinds(timeline: &[TimelineEntry]) -> Vec<(u64, NoticeKind)> {
        let notices = timeline.iter().filter_map(|it| Some((it.seq, notice_of(it, "v2")?.kind)));
        notices.collect()
    }

    #[test]
    fn a_rollback_is_told_when_it_begins_and_when_it_is_over() {
        let timeline = example::timeline();
        assert_eq!(kinds(&timeline), [(1, NoticeKind::Info), (4, NoticeKind::Warn)]);
        let notice = notice_of(&timeline[3], "v2").unwrap();
        assert_eq!((notice.id.as_str(), notice.group.as_str()), ("weather/2/4", "weather/2"));
        assert!(notice.text.starts_with("weather: v2 is degraded: availability: 62 of 318"));
        let mut incident = example::incident();
        incident.failed = (62, 318);
        let last = timeline.last().unwrap();
        let over = notice_of_draft(&incident, last, DraftText::default()).unwrap();
        assert_eq!((over.kind, over.failed), (NoticeKind::Resolved, Some((62, 318))));
        assert_eq!(over.group, notice.group);
        // It goes where the begin went.
        assert!(over.is_for(&[NoticeKind::Warn, NoticeKind::Resolved]));
        assert!(!over.is_for(&[NoticeKind::Page, NoticeKind::Resolved]));
        assert!(!over.is_for(&[NoticeKind::Warn]));
    }

    #[test]
    fn a_log_message_is_one_notice_an_hour() {
        let notice = |text: &str, ms| notice_of_page("weather", text, ("", Moment(ms)));
        let first = notice("cannot read x", 7_200_000);
        assert_eq!(first.text, "weather: cannot read x. A person is needed now.");
        assert_eq!(first.kind, NoticeKind::Page);
        assert_eq!(first.id, notice("cannot read x", 10_799_999).id);
        assert_ne!(first.id, notice("cannot read x", 10_800_000).id);
        assert_ne!(first.id, notice("cannot read y", 7_200_000).id);
        // FNV-1a of nothing, and of "a", by its authors.
        assert_eq!((fnv1a(b""), fnv1a(b"a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }
}
