//! The incidents of all services: opened from their timelines, drafted, listed, reviewed.
//!
//! A [`follow`] task for each service reads the entries that its loop records. It opens an incident with
//! the entry that causes it, and tells people. [`drafting`] keeps what would be lost, and writes the draft
//! when the service has settled. The loop never waits for them. After a crash the task reads the timeline
//! again; an entry that the record knows changes nothing.
//!
//! A record is locked while it is written. The status and the metrics never wait for that: they read
//! [`open_reviews`].

mod capture;
mod changes;
mod drafting;
mod follow;
mod gather;
mod image_changes;
mod notify;
mod open_reviews;
mod remind;
mod report;
mod requests;
mod service_incidents;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use tokio::sync::{mpsc, watch};

use crate::clock::Clock;
use crate::config::{Service, Settings};
use crate::control::Status;
use crate::daemon::incidents::open_reviews::OpenReviews;
use crate::daemon::incidents::service_incidents::ServiceIncidents;
use crate::daemon::services::{Proxies, ServiceHandles};
use crate::mutex::lock;
use crate::notify::{Delivered, Notifier};

/// The incidents of all services. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Incidents(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    services: BTreeMap<String, ServiceEntry>,
    settings: Mutex<Arc<Settings>>,
    notifier: Notifier,
    proxies: Proxies,
}

/// The incidents of one service, and what is reported of them without the lock.
#[derive(Debug)]
struct ServiceEntry {
    /// Its state directory.
    dir: PathBuf,
    incidents: Mutex<ServiceIncidents>,
    reviews: watch::Receiver<OpenReviews>,
}

impl Incidents {
    /// The incidents of these services, read from disk. The receiver gets what the channels delivered.
    pub(super) fn new(
        settings: &Settings,
        handles: &ServiceHandles,
        proxies: Proxies,
        clock: Clock,
    ) -> (Self, mpsc::Receiver<Delivered>) {
        let services = handles.iter().map(|(name, handle)| {
            let (incidents, reviews) = ServiceIncidents::read(name, handle.dir());
            let (dir, incidents) = (handle.dir().to_owned(), Mutex::new(incidents));
            (name.clone(), ServiceEntry { dir, incidents, reviews })
        });
        let services = services.collect();
        let (notifier, delivered) = Notifier::new(&settings.state_dir, clock);
        let settings = Mutex::new(Arc::new(settings.clone()));
        (Self(Arc::new(Shared { clock, services, settings, notifier, proxies })), delivered)
    }

    /// Applies new settings.
    pub(super) fn configure(&self, settings: &Settings) {
        *lock(&self.0.settings) = Arc::new(settings.clone());
        self.start_channels();
    }

    /// Starts the channels, in place of those that ran before.
    pub(super) fn start_channels(&self) {
        let settings = self.settings();
        tokio::task::block_in_place(|| self.0.notifier.configure(&settings));
    }

    /// Tells people.
    pub(super) fn notifier(&self) -> &Notifier {
        &self.0.notifier
    }

    /// Adds the open reviews and the channels to the status of a service.
    pub(super) fn complete(&self, status: &mut Status) {
        let now = self.0.clock.now();
        let reports = self.0.notifier.reports(&status.service);
        status.channels = reports.into_iter().map(|it| notify::channel_status(it, now)).collect();
        status.notify_error = self.0.notifier.error();
        let settings = self.settings();
        status.awaits_restart = awaits_restart(&settings, &status.service);
        let within = settings.incidents.review_within();
        status.incidents = self.reviews(&status.service).and_then(|it| it.status(now, within));
    }

    /// The open reviews of a service, in a sentence. `None`: there is none.
    pub(super) fn review_text(&self, service: &str) -> Option<String> {
        let within = self.settings().incidents.review_within();
        let status = self.reviews(service)?.status(self.0.clock.now(), within)?;
        let (number, overdue) = (status.oldest.0, if status.overdue { ", overdue" } else { "" });
        (0 < status.open).then(|| {
            format!(
                "{} open, the oldest is incident {number}{overdue}: `rollbackd postmortem {service} \
                 {number}`",
                status.open
            )
        })
    }

    /// The open reviews of all services, for the status line of the service manager.
    pub(super) fn status_line(&self) -> String {
        let mut open = Vec::new();
        for (name, service) in &self.0.services {
            let reviews = service.reviews.borrow();
            let numbers: Vec<_> = reviews.first.iter().map(ToString::to_string).collect();
            if !numbers.is_empty() {
                open.push(format!("{name} {}", numbers.join(", ")));
            }
        }
        match open.is_empty() {
            true => String::new(),
            false => format!("open reviews: {}", open.join("; ")),
        }
    }

    /// The incidents of a service, locked. Another task may hold them while it writes to a slow disk.
    fn service(&self, name: &str) -> Option<MutexGuard<'_, ServiceIncidents>> {
        let incidents = &self.0.services.get(name)?.incidents;
        Some(match incidents.try_lock() {
            Ok(incidents) => incidents,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The requests that this thread serves must not wait, too.
            Err(TryLockError::WouldBlock) => tokio::task::block_in_place(|| lock(incidents)),
        })
    }

    /// The open reviews of a service. It never waits for a disk.
    fn reviews(&self, service: &str) -> Option<watch::Ref<'_, OpenReviews>> {
        Some(self.0.services.get(service)?.reviews.borrow())
    }

    fn service_settings(&self, name: &str) -> Option<Service> {
        self.settings().services.get(name).cloned()
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&lock(&self.0.settings))
    }
}

/// What waits for a restart, as the status of a service names it.
fn awaits_restart(settings: &Settings, service: &str) -> Vec<String> {
    let prefix = format!("{service}.");
    let own = |name: &String| name.strip_prefix(&prefix).map(str::to_owned);
    let shared = |name: &String| {
        let is_shared = name.starts_with("daemon.") || name.starts_with("service.");
        is_shared.then(|| name.clone())
    };
    // A service may be called `daemon`: its own settings come first.
    settings.awaits_restart.iter().filter_map(|it| own(it).or_else(|| shared(it))).collect()
}
