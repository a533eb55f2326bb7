//! What the page shows at one moment. Each section is rendered once, for all pages that follow.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::control::Status;
use crate::incident::DeployHistory;
use crate::model::{Guard, TimelineEntry, TimelineEvent};
use crate::web::samples::Samples;

/// The sections of a page: the id of the element, and its content.
pub(super) type Sections = Vec<(&'static str, Arc<str>)>;

/// A page that can be followed.
#[derive(Debug)]
pub(super) enum View {
    /// All services.
    Host,
    /// The service with this name.
    Service(String),
}

/// All services at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// RFC 3339, UTC.
    pub wall_time: String,
    /// For its age.
    pub taken_at: Instant,
    /// By name.
    pub services: Vec<ServiceSnapshot>,
    host_sections: OnceLock<Sections>,
    service_sections: Vec<OnceLock<Sections>>,
}

/// One service at one moment.
#[derive(Debug)]
pub(super) struct ServiceSnapshot {
    /// Its name.
    pub name: String,
    /// Its last status. `None`: it did not answer yet.
    pub status: Option<Arc<Status>>,
    /// For how long it has not answered, if it should have.
    pub silent_for: Option<Duration>,
    /// The newest deploy; of a long one, the beginning and the end.
    pub entries: Vec<Arc<TimelineEntry>>,
    /// The newest deploys, newest first.
    pub deploys: Vec<DeployHistory>,
    /// For the charts.
    pub samples: Samples,
}

impl Snapshot {
    pub(super) fn new(
        wall_time: String,
        taken_at: Instant,
        services: Vec<ServiceSnapshot>,
    ) -> Self {
        let service_sections = services.iter().map(|_| OnceLock::new()).collect();
        let host_sections = OnceLock::new();
        Self { wall_time, taken_at, services, host_sections, service_sections }
    }

    /// The service with this name.
    pub(super) fn service(&self, name: &str) -> Option<&ServiceSnapshot> {
        self.services.iter().find(|it| it.name == name)
    }

    /// The sections of the host's page; `render` makes them, once.
    pub(super) fn host_sections(&self, render: impl FnOnce(&Self) -> Sections) -> &Sections {
        self.host_sections.get_or_init(|| render(self))
    }

    /// The sections of a service's page; `render` makes them, once. `None`: there is no such service.
    pub(super) fn service_sections(
        &self,
        name: &str,
        render: impl FnOnce(&ServiceSnapshot) -> Sections,
    ) -> Option<&Sections> {
        let mut services = self.services.iter().zip(&self.service_sections);
        let (service, sections) = services.find(|(it, _)| it.name == name)?;
        Some(sections.get_or_init(|| render(service)))
    }

    /// Hours, minutes and seconds, UTC.
    pub(super) fn time_of_day(&self) -> &str {
        self.wall_time.get(11..19).unwrap_or_default()
    }
}

impl ServiceSnapshot {
    /// The guard that blocks a rollback now.
    pub(super) fn blocking_guard(&self) -> Option<Guard> {
        self.entries.iter().fold(None, |guard, entry| match entry.event {
            TimelineEvent::Blocked { guard, .. } => Some(guard),
            TimelineEvent::Cleared
            | TimelineEvent::Accepted { .. }
            | TimelineEvent::Decided { .. }
            | TimelineEvent::Detected { .. } => None,
            _ => guard,
        })
    }
}
