//! What is reported of the reviews of one service: a copy, so that a reader never waits for the record.

use std::time::Duration;

use crate::control::IncidentStatus;
use crate::incident::Incident;
use crate::model::{Moment, ReleaseNumber};

/// Reviews that a status line names.
const NAMED_MAX: usize = 3;

/// The open reviews of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OpenReviews {
    open: u64,
    /// The oldest one, and when it was opened.
    oldest: Option<(ReleaseNumber, Moment)>,
    /// The first of them, oldest first.
    pub(super) first: Vec<ReleaseNumber>,
    /// The newest incident that waits for a person.
    unacknowledged: Option<ReleaseNumber>,
    /// Why the records cannot be used, if so.
    error: Option<String>,
}

impl OpenReviews {
    /// Those of all incidents of a service, the oldest first.
    pub(super) fn of<'a>(
        incidents: impl Iterator<Item = &'a Incident>,
        error: Option<&str>,
    ) -> Self {
        let mut reviews = Self { error: error.map(str::to_owned), ..Self::default() };
        for incident in incidents {
            if incident.waits_for_person() {
                reviews.unacknowledged = Some(incident.number);
            }
            if !incident.is_open() {
                continue;
            }
            reviews.open += 1;
            reviews.oldest.get_or_insert((incident.number, incident.opened));
            if reviews.first.len() < NAMED_MAX {
                reviews.first.push(incident.number);
            }
        }
        reviews
    }

    /// What a status shows; none where there is nothing to review. A review may take `within`.
    pub(super) fn status(&self, now: Moment, within: Duration) -> Option<IncidentStatus> {
        if self.oldest.is_none() && self.error.is_none() {
            return None;
        }
        let age = self.oldest.map(|(_, opened)| now.since(opened)).unwrap_or_default();
        Some(IncidentStatus {
            open: self.open,
            oldest: (self.oldest.map(|(number, _)| number).unwrap_or_default(), age.as_secs()),
            overdue: within < age,
            unacknowledged: self.unacknowledged,
            error: self.error.clone(),
        })
    }
}
