//! The incidents of one service: their states in memory, their files.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tokio::sync::watch;

use crate::control::IncidentRow;
use crate::daemon::incidents::open_reviews::OpenReviews;
use crate::incident::utc::format_time;
use crate::incident::{
    Facts, HumanParts, Incident, IncidentEntry, IncidentEvent, PostMortem, build, html, markdown,
    parse_human,
};
use crate::model::{Moment, ReleaseNumber};
use crate::record::IncidentStore;

/// Earlier incidents that a draft is compared with, newest first.
const COMPARED_MAX: usize = 1_000;
/// Earlier incidents with the same signature that a draft names.
const RECURRENCES_MAX: usize = 10;

/// The incidents of one service.
#[derive(Debug)]
pub(super) struct ServiceIncidents {
    pub(super) name: String,
    pub(super) store: IncidentStore,
    incidents: BTreeMap<ReleaseNumber, Incident>,
    error: Option<String>,
    /// Whether something could not be written, and nothing was since.
    is_behind: bool,
    reviews: watch::Sender<OpenReviews>,
}

impl ServiceIncidents {
    /// Reads all records. One that cannot be read is reported and left out. The receiver has what a
    /// status shows, also while the records are locked.
    pub(super) fn read(name: &str, service_dir: &Path) -> (Self, watch::Receiver<OpenReviews>) {
        let store = IncidentStore::new(service_dir);
        let (reviews, receiver) = watch::channel(OpenReviews::default());
        let (name, incidents) = (name.to_owned(), BTreeMap::new());
        let mut this = Self { name, store, incidents, error: None, is_behind: false, reviews };
        match this.store.list() {
            Ok(numbers) => {
                for number in numbers {
                    match this.store.restore(number) {
                        Ok(incident) => this.incidents.extend(incident.map(|it| (number, it))),
                        Err(error) => this.report(&error),
                    }
                }
            }
            Err(error) => this.report(&error),
        }
        this.publish();
        (this, receiver)
    }

    fn publish(&self) {
        let incidents = self.incidents.values();
        self.reviews.send_replace(OpenReviews::of(incidents, self.error.as_deref()));
    }

    /// An incident.
    pub(super) fn get(&self, number: ReleaseNumber) -> Option<&Incident> {
        self.incidents.get(&number)
    }

    /// All incidents, newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values().rev()
    }

    /// Those that need a review, oldest first.
    pub(super) fn open(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values().filter(|it| it.is_open())
    }

    /// Appends an entry to the record of an incident, and applies it.
    ///
    /// # Errors
    /// It could not be written. Then the state is as before.
    pub(super) fn record(
        &mut self,
        number: ReleaseNumber,
        (now, wall_time): (Moment, String),
        event: IncidentEvent,
    ) -> io::Result<()> {
        let entry = IncidentEntry { wall_time, moment: now, event };
        if let Err(error) = self.store.append(number, &entry) {
            self.on_write_error(&error);
            return Err(error);
        }
        (self.error, self.is_behind) = (None, false);
        match self.incidents.get_mut(&number) {
            Some(incident) => incident.apply(&entry),
            None => self
                .incidents
                .extend(Incident::restore(std::slice::from_ref(&entry)).map(|it| (number, it))),
        }
        self.publish();
        Ok(())
    }

    /// Whether something could not be written, and nothing was since.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Something could not be written: it is tried again.
    pub(super) fn on_write_error(&mut self, error: &io::Error) {
        self.is_behind = true;
        self.report(error);
        self.publish();
    }

    /// Shows an error in the status, and once in the log.
    fn report(&mut self, error: &io::Error) {
        let message = format!("cannot use the record of an incident: {error}");
        if self.error.as_ref() != Some(&message) {
            tracing::error!(service = self.name, "{message}");
        }
        self.error = Some(message);
    }

    /// Earlier incidents with the same signature, newest first.
    pub(super) fn recurrences(
        &self,
        number: ReleaseNumber,
        signature: &crate::incident::Signature,
    ) -> Vec<ReleaseNumber> {
        let earlier =
            self.all().filter(|it| it.number < number && it.is_drafted).take(COMPARED_MAX);
        let same = earlier.filter(|it| it.signature.matches(signature));
        same.map(|it| it.number).take(RECURRENCES_MAX).collect()
    }

    /// What people wrote.
    ///
    /// # Errors
    /// The document cannot be read, or its markers are broken: where.
    pub(super) fn human(&self, number: ReleaseNumber) -> Result<HumanParts, String> {
        let path = self.store.document_path(number, "md");
        match self.store.read_document(number) {
            Ok(Some(text)) => {
                parse_human(&text).map_err(|error| format!("{}: {error}", path.display()))
            }
            Ok(None) => Ok(HumanParts::default()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// The document; its facts are those of the draft.
    ///
    /// # Errors
    /// There is no such incident, or its files cannot be read.
    pub(super) fn document(&self, number: ReleaseNumber) -> Result<PostMortem, String> {
        let incident = self.get(number).ok_or_else(|| self.no_incident(number))?;
        let facts = self.store.read_facts(number).map_err(|error| {
            format!("cannot read the facts of incident {number} of {}: {error}", self.name)
        })?;
        let facts = facts.unwrap_or_else(Facts::default);
        Ok(build(incident, &facts, self.human(number)?, &self.open_actions(number)))
    }

    /// Writes the document with these texts, as Markdown and as HTML.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn write_document(
        &self,
        number: ReleaseNumber,
        human: HumanParts,
    ) -> Result<PostMortem, String> {
        let incident = self.get(number).ok_or_else(|| self.no_incident(number))?;
        let failed = |error: io::Error| format!("cannot write the document: {error}");
        let facts = self.store.read_facts(number).map_err(failed)?.unwrap_or_default();
        let document = build(incident, &facts, human, &self.open_actions(number));
        for (extension, text) in
            [("md", markdown::render(&document)), ("html", html::render(&document))]
        {
            self.store.write_document(number, extension, &text).map_err(failed)?;
        }
        Ok(document)
    }

    /// Open action items of earlier incidents: name and text.
    pub(super) fn open_actions(&self, before: ReleaseNumber) -> Vec<(String, String)> {
        let earlier = self.all().filter(|it| it.number < before);
        let open = earlier.flat_map(|it| {
            let items = it.actions.iter().filter(|action| !action.done);
            items.map(|action| (format!("{}-{}", it.number, action.item), action.text.clone()))
        });
        open.take(20).collect()
    }

    /// Removes all but the newest closed incidents. Open ones stay.
    pub(super) fn keep_newest_closed(&mut self, keep: u64) {
        let closed = self.all().filter(|it| !it.is_open()).map(|it| it.number);
        let surplus: Vec<_> = closed.skip(usize::try_from(keep).unwrap_or(usize::MAX)).collect();
        for number in surplus {
            self.store.remove(number);
            self.incidents.remove(&number);
            self.publish();
        }
    }

    /// An incident in a row.
    pub(super) fn row(&self, incident: &Incident, now: Moment) -> IncidentRow {
        IncidentRow {
            service: self.name.clone(),
            incident: incident.number,
            version: incident.version.clone(),
            state: incident.state.label().to_owned(),
            title: format!("{}: {}", incident.version, incident.cause().label()),
            opened: format_time(incident.opened),
            age_s: now.since(incident.opened).as_secs(),
            failed: incident.failed,
            waits_for_person: incident.waits_for_person(),
            recurrence_of: incident.recurrence_of.first().copied(),
            open_actions: incident.actions.iter().filter(|it| !it.done).count() as u64,
        }
    }

    /// Why there is no such incident.
    pub(super) fn no_incident(&self, number: ReleaseNumber) -> String {
        let last = self
            .all()
            .next()
            .map_or("it has none".to_owned(), |it| format!("the newest is {}", it.number));
        format!("no incident {number} of {}; {last}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Cause;

    fn opened(deploy: u32) -> IncidentEvent {
        IncidentEvent::Opened {
            service: "weather".to_owned(),
            deploy: ReleaseNumber(deploy),
            version: "v2".to_owned(),
            cause: Cause::Rollback,
            seq: 1,
            because: "v2 fails".to_owned(),
        }
    }

    #[test]
    fn every_change_is_seen_without_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (mut incidents, reviews) = ServiceIncidents::read("weather", dir.path());
        let status =
            |within| reviews.borrow().status(Moment(9_000), std::time::Duration::from_secs(within));
        assert_eq!(status(1), None);
        for (number, at) in [(2, 5_000), (3, 7_000)] {
            let at = (Moment(at), "2026-11-27T10:00:00Z".to_owned());
            incidents.record(ReleaseNumber(number), at, opened(number)).unwrap();
        }
        let seen = status(60).unwrap();
        assert_eq!((seen.open, seen.oldest, seen.overdue), (2, (ReleaseNumber(2), 4), false));
        assert!(status(1).unwrap().overdue);
        let close = |number| {
            let by = crate::incident::Author { uid: 0, name: "root".to_owned() };
            let event = IncidentEvent::Closed { by, verdict: None, no_review: None };
            (ReleaseNumber(number), (Moment(8_000), "2026-11-27T10:00:00Z".to_owned()), event)
        };
        for (number, at, event) in [close(2), close(3)] {
            incidents.record(number, at, event).unwrap();
        }
        assert_eq!(status(1), None);
        // A restart shows the same.
        assert_eq!(*ServiceIncidents::read("weather", dir.path()).1.borrow(), *reviews.borrow());
    }
}
