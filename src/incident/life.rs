//! The life of an incident: the fold of its record.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::incident::action::{ACTIONS_MAX, Action};
use crate::incident::cause::Cause;
use crate::incident::record::{Author, IncidentEntry, IncidentEvent};
use crate::incident::signature::Signature;
use crate::incident::verdict::ReviewVerdict;
use crate::model::{Moment, ReleaseNumber};

/// Notifications that an incident remembers; the record has all of them.
const NOTIFICATIONS_MAX: usize = 100;

/// Where an incident is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// The daemon opened it, and the service is not settled yet.
    #[default]
    Opened,
    /// The draft is written, and no person began the review.
    Draft,
    /// A person wrote into the document.
    InReview,
    /// The review is complete, or none is needed.
    Closed,
}

/// One incident. Its number is the number of the deploy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Incident {
    /// The service.
    pub service: String,
    /// The deploy, and the number of the incident.
    pub number: ReleaseNumber,
    /// The version of the release.
    pub version: String,
    /// Where it is in its life.
    pub state: IncidentState,
    /// Everything that happened to the deploy, in order of first occurrence: cause, time, reason.
    pub causes: Vec<(Cause, Moment, String)>,
    /// When it was opened.
    pub opened: Moment,
    /// When it was closed last.
    pub closed: Option<Moment>,
    /// The last event of the timeline that it knows.
    pub last_seq: u64,
    /// The last event of the timeline that the draft contains.
    pub drafted_seq: u64,
    /// Whether a draft was written.
    pub is_drafted: bool,
    /// Whether what opened it had ended when the draft was written.
    pub is_over: bool,
    /// What identifies a repetition.
    pub signature: Signature,
    /// Earlier incidents with the same signature, newest first.
    pub recurrence_of: Vec<ReleaseNumber>,
    /// Requests that failed, and all of them in the same time.
    pub failed: (u64, u64),
    /// The first acknowledgement since it was opened.
    pub acknowledged: Option<(Moment, Author)>,
    /// Channels that accepted a notification: when, which, and its key.
    pub notified: Vec<(Moment, String, String)>,
    /// Reminders that were sent, and the last one.
    pub reminders: (u32, Option<Moment>),
    /// The action items.
    pub actions: Vec<Action>,
    /// People who wrote into the document.
    pub editors: BTreeSet<u32>,
    /// What a person found about the verdict.
    pub verdict: Option<ReviewVerdict>,
    /// Why no review was needed.
    pub no_review: Option<String>,
    /// Why it was opened again.
    pub reopened: Option<String>,
}

impl Incident {
    /// Folds a record. None for a record that does not begin with `opened`.
    pub fn restore(entries: &[IncidentEntry]) -> Option<Self> {
        let mut entries = entries.iter();
        let first = entries.next()?;
        let IncidentEvent::Opened { service, deploy, version, cause, seq, because } = &first.event
        else {
            return None;
        };
        let mut incident = Self {
            service: service.clone(),
            number: *deploy,
            version: version.clone(),
            opened: first.moment,
            last_seq: *seq,
            causes: vec![(*cause, first.moment, because.clone())],
            ..Self::default()
        };
        entries.for_each(|entry| incident.apply(entry));
        Some(incident)
    }

    /// Applies one entry.
    pub fn apply(&mut self, entry: &IncidentEntry) {
        let now = entry.moment;
        match &entry.event {
            // A record has one; a copy of it changes nothing.
            IncidentEvent::Opened { .. } => (),
            IncidentEvent::Joined { cause, seq, because } => {
                self.last_seq = self.last_seq.max(*seq);
                self.is_over = false;
                if !self.causes.iter().any(|(known, ..)| known == cause) {
                    self.causes.push((*cause, now, because.clone()));
                }
                self.reopen();
            }
            IncidentEvent::Drafted { seq, signature, recurrence_of, failed, requests, is_over } => {
                self.is_over = *is_over;
                self.drafted_seq = self.drafted_seq.max(*seq);
                self.is_drafted = true;
                self.signature = signature.clone();
                self.recurrence_of.clone_from(recurrence_of);
                self.failed = (*failed, *requests);
                self.reopen();
            }
            IncidentEvent::Edited { by, .. } => {
                self.editors.insert(by.uid);
                if self.state != IncidentState::Closed {
                    self.state = IncidentState::InReview;
                }
            }
            IncidentEvent::Acknowledged { by } => {
                self.acknowledged.get_or_insert((now, by.clone()));
            }
            IncidentEvent::Notified { channel, key } => {
                if self.notified.len() < NOTIFICATIONS_MAX {
                    self.notified.push((now, channel.clone(), key.clone()));
                }
            }
            IncidentEvent::Reminded => self.reminders = (self.reminders.0 + 1, Some(now)),
            IncidentEvent::ActionAdded { action, .. } => {
                if self.actions.len() < ACTIONS_MAX {
                    self.actions.push(action.clone());
                }
            }
            IncidentEvent::ActionDone { item, .. } => self.set_done(*item, true),
            IncidentEvent::ActionReopened { item, .. } => self.set_done(*item, false),
            IncidentEvent::Closed { verdict, no_review, .. } => {
                self.state = IncidentState::Closed;
                self.closed = Some(now);
                self.verdict = *verdict;
                self.no_review.clone_from(no_review);
            }
            IncidentEvent::Reopened { because } => {
                self.reopened = Some(because.clone());
                self.state = IncidentState::Closed;
                self.reopen();
            }
        }
    }

    /// Whether it needs a review.
    pub fn is_open(&self) -> bool {
        self.state != IncidentState::Closed
    }

    /// The first cause.
    pub fn cause(&self) -> Cause {
        self.causes.first().map_or(Cause::Rollback, |(cause, ..)| *cause)
    }

    /// Whether a person has to act now: it goes on, and it is not acknowledged.
    pub fn waits_for_person(&self) -> bool {
        let last = self.causes.last().map_or(Cause::Rollback, |(cause, ..)| *cause);
        self.is_open() && !self.is_over && last.needs_person() && self.acknowledged.is_none()
    }

    /// The number of the next action item.
    pub fn next_item(&self) -> u32 {
        self.actions.iter().map(|it| it.item).max().unwrap_or(0) + 1
    }

    /// The state of an incident with new facts.
    fn reopen(&mut self) {
        self.state = match (self.is_drafted, self.editors.is_empty()) {
            (_, false) => IncidentState::InReview,
            (true, true) => IncidentState::Draft,
            (false, true) => IncidentState::Opened,
        };
        self.closed = None;
    }

    fn set_done(&mut self, item: u32, done: bool) {
        for action in self.actions.iter_mut().filter(|it| it.item == item) {
            action.done = done;
        }
    }
}

impl IncidentState {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Draft => "draft",
            Self::InReview => "in review",
            Self::Closed => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ms: u64, event: IncidentEvent) -> IncidentEntry {
        IncidentEntry { wall_time: String::new(), moment: Moment(ms), event }
    }

    fn opened() -> IncidentEntry {
        let (service, version, because) = ("weather".into(), "v2".into(), "why".into());
        let (deploy, cause) = (ReleaseNumber(7), Cause::Rollback);
        entry(1, IncidentEvent::Opened { service, deploy, version, cause, seq: 4, because })
    }

    fn drafted(seq: u64) -> IncidentEvent {
        let signature = Signature::default();
        let (recurrence_of, failed, requests, is_over) = (Vec::new(), 1, 9, false);
        IncidentEvent::Drafted { seq, signature, recurrence_of, failed, requests, is_over }
    }

    fn by() -> Author {
        Author { uid: 1000, name: "ada".into() }
    }

    #[test]
    fn a_review_goes_from_opened_to_closed() {
        let mut record = vec![opened()];
        let state = |record: &[IncidentEntry]| Incident::restore(record).unwrap().state;
        assert_eq!(state(&record), IncidentState::Opened);
        record.push(entry(2, drafted(6)));
        assert_eq!(state(&record), IncidentState::Draft);
        let edited = IncidentEvent::Edited { by: by(), digest: "x".into(), parts: vec![] };
        record.push(entry(3, edited));
        assert_eq!(state(&record), IncidentState::InReview);
        record.push(entry(4, IncidentEvent::Closed { by: by(), verdict: None, no_review: None }));
        assert_eq!(state(&record), IncidentState::Closed);
        record.push(entry(5, IncidentEvent::Notified { channel: "chat".into(), key: "k".into() }));
        assert_eq!(state(&record), IncidentState::Closed, "a late delivery opens nothing");
        record.push(entry(6, IncidentEvent::Reopened { because: "again".into() }));
        assert_eq!(state(&record), IncidentState::InReview);
    }

    #[test]
    fn a_later_event_of_the_deploy_joins_and_opens_again() {
        let joined = IncidentEvent::Joined {
            cause: Cause::RollbackIncomplete,
            seq: 9,
            because: "v1 fails too".into(),
        };
        let closed = IncidentEvent::Closed { by: by(), verdict: None, no_review: None };
        let record = [opened(), entry(2, drafted(6)), entry(3, closed), entry(4, joined)];
        let incident = Incident::restore(&record).unwrap();
        assert_eq!((incident.state, incident.last_seq), (IncidentState::Draft, 9));
        assert!(incident.waits_for_person());
        // The breach ended: the page is over, and the review is still open.
        let IncidentEvent::Drafted { signature, recurrence_of, failed, requests, .. } = drafted(9)
        else {
            panic!("not drafted")
        };
        let event = IncidentEvent::Drafted {
            seq: 10,
            signature,
            recurrence_of,
            failed,
            requests,
            is_over: true,
        };
        let mut over = incident.clone();
        over.apply(&entry(5, event));
        assert!(over.is_open() && !over.waits_for_person());
        assert_eq!(incident.cause(), Cause::Rollback);
    }

    #[test]
    fn a_record_without_its_beginning_is_none() {
        assert_eq!(Incident::restore(&[]), None);
        assert_eq!(Incident::restore(&[entry(1, IncidentEvent::Reminded)]), None);
    }
}
