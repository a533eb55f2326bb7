//! Collects what the page shows: the status of each service, its timeline, samples for the charts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::clock::{Clock, monotonic};
use crate::control::Status;
use crate::incident::{DeployHistory, summarise};
use crate::model::{Moment, TimelineEntry};
use crate::record;
use crate::service::handle::ServiceHandle;
use crate::web::samples::Samples;
use crate::web::snapshot::{ServiceSnapshot, Snapshot};

/// How often the status is collected without an event.
const INTERVAL: Duration = Duration::from_secs(1);
/// After an event: more events that come together make one snapshot.
const SETTLE_TIME: Duration = Duration::from_millis(50);
/// How long a service may take to report its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Lines of the newest timeline that are kept.
const ENTRIES_MAX: usize = 1_000;
/// Deploys that are kept.
const DEPLOYS_MAX: usize = 10;

/// Adds to a status what the service loop does not know: open reviews, and channels.
pub(crate) type CompleteStatus = Arc<dyn Fn(&mut Status) + Send + Sync>;

/// The services of the daemon.
pub(super) type Handles = Arc<BTreeMap<String, ServiceHandle>>;

/// The page does not show how much of a bake a rollback saved.
const BAKE_UNKNOWN_MS: u64 = 0;

/// Something new in a timeline.
enum Change {
    /// A line.
    Entry(Arc<TimelineEntry>),
    /// Lines of this service were missed.
    Missed(String),
}

/// What is known of one service.
struct Service {
    handle: ServiceHandle,
    status: Option<Arc<Status>>,
    answered_at: Instant,
    entries: Vec<Arc<TimelineEntry>>,
    deploys: Vec<DeployHistory>,
    samples: Samples,
}

/// Publishes snapshots until it is dropped.
pub(super) async fn run(
    handles: Handles,
    complete: CompleteStatus,
    publisher: watch::Sender<Option<Arc<Snapshot>>>,
) {
    // Before the files are read, so that no line is missed between.
    let mut changes = follow_all(&handles);
    let clock = Clock::start(Moment(0));
    let mut services = BTreeMap::new();
    for (name, handle) in handles.iter() {
        services.insert(name.clone(), Service::load(handle.clone()).await);
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => (),
            Some(change) = changes.next() => {
                take_change(&mut services, change).await;
                tokio::time::sleep(SETTLE_TIME).await;
                while let Some(Some(change)) = changes.next().now_or_never() {
                    take_change(&mut services, change).await;
                }
            }
        }
        let now = clock.now();
        join_all(services.values_mut().map(|service| service.refresh(now, &complete))).await;
        let _ = publisher.send(Some(Arc::new(snapshot(&services, clock.wall_time()))));
    }
}

fn follow_all(handles: &Handles) -> SelectAll<BoxStream<'static, Change>> {
    let follow = |(name, handle): (&String, &ServiceHandle)| {
        let state = (name.clone(), handle.subscribe());
        let changes = stream::unfold(state, |(name, mut entries)| async move {
            let change = match entries.recv().await {
                Ok(entry) => Change::Entry(entry),
                Err(broadcast::error::RecvError::Lagged(_)) => Change::Missed(name.clone()),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((change, (name, entries)))
        });
        changes.boxed()
    };
    stream::select_all(handles.iter().map(follow))
}

async fn take_change(services: &mut BTreeMap<String, Service>, change: Change) {
    match change {
        Change::Entry(entry) => {
            if let Some(service) = services.get_mut(&entry.service) {
                service.add(entry);
            }
        }
        Change::Missed(name) => {
            if let Some(service) = services.get_mut(&name) {
                service.reload().await;
            }
        }
    }
}

fn snapshot(services: &BTreeMap<String, Service>, wall_time: String) -> Snapshot {
    let now = monotonic();
    let services = services.iter().map(|(name, service)| {
        let silent = now.duration_since(service.answered_at);
        ServiceSnapshot {
            name: name.clone(),
            status: service.status.clone(),
            silent_for: (INTERVAL + STATUS_TIMEOUT <= silent).then_some(silent),
            entries: service.entries.clone(),
            deploys: service.deploys.clone(),
            samples: service.samples.clone(),
        }
    });
    Snapshot::new(wall_time, now, services.collect())
}

impl Service {
    async fn load(handle: ServiceHandle) -> Self {
        let mut service = Self {
            handle,
            status: None,
            answered_at: monotonic(),
            entries: Vec::new(),
            deploys: Vec::new(),
            samples: Samples::default(),
        };
        service.reload().await;
        service
    }

    /// Reads the newest timelines.
    async fn reload(&mut self) {
        let dir = self.handle.dir().to_owned();
        let read = tokio::task::spawn_blocking(move || read_newest(&dir));
        if let Ok((entries, deploys)) = read.await {
            (self.entries, self.deploys) = (entries, deploys);
        }
    }

    /// Adds a line, if it is newer than those that are known.
    fn add(&mut self, entry: Arc<TimelineEntry>) {
        let known = self.entries.last().map(|last| (last.deploy, last.seq));
        if known.is_some_and(|last| (entry.deploy, entry.seq) <= last) {
            return;
        }
        if self.entries.last().is_some_and(|last| last.deploy != entry.deploy) {
            self.entries.clear();
        }
        match self.deploys.first_mut() {
            Some(newest) if newest.row().deploy == entry.deploy => newest.add(&entry),
            _ => {
                if let Some(history) = DeployHistory::begin(&entry, BAKE_UNKNOWN_MS) {
                    self.deploys.insert(0, history);
                    self.deploys.truncate(DEPLOYS_MAX);
                }
            }
        }
        self.entries.push(entry);
        cut_to_limit(&mut self.entries);
    }

    async fn refresh(&mut self, now: Moment, complete: &CompleteStatus) {
        let answer = tokio::time::timeout(STATUS_TIMEOUT, self.handle.status()).await;
        if let Ok(Some(mut status)) = answer {
            complete(&mut status);
            self.answered_at = monotonic();
            self.samples.add(now, &status);
            self.status = Some(Arc::new(status));
        }
    }
}

/// Keeps the beginning of a deploy, and its newest lines.
fn cut_to_limit(entries: &mut Vec<Arc<TimelineEntry>>) {
    if ENTRIES_MAX < entries.len() {
        let half = ENTRIES_MAX / 2;
        entries.drain(half..entries.len() - half);
    }
}

/// The lines of the newest deploy, and the summaries of the newest deploys, newest first. What
/// cannot be read is left out: the status says why.
fn read_newest(dir: &Path) -> (Vec<Arc<TimelineEntry>>, Vec<DeployHistory>) {
    let numbers = record::list_deploys(dir).unwrap_or_default();
    let (mut newest, mut deploys) = (Vec::new(), Vec::new());
    for (number, _) in numbers.into_iter().rev().take(DEPLOYS_MAX) {
        let entries = record::read_deploy(dir, Some(number)).unwrap_or_default();
        deploys.extend(summarise(&entries, BAKE_UNKNOWN_MS));
        if newest.is_empty() && !entries.is_empty() {
            newest = entries.into_iter().map(Arc::new).collect();
            cut_to_limit(&mut newest);
        }
    }
    (newest, deploys)
}
