//! Builds a service from its timeline: handle, proxy, and the loop that is not running yet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::config::{Service, Settings};
use crate::critical;
use crate::decide::Watch;
use crate::machine::ServiceMachine;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::proxy::{Proxy, SessionIdSecret};
use crate::record;
use crate::record::{OpenedTimeline, StateDir, Timeline, Truncated};
use crate::service::artifact_guard::ArtifactGuard;
use crate::service::bake::BakeLog;
use crate::service::call_usage::CallUsage;
use crate::service::handle::ServiceHandle;
use crate::service::heartbeat::Heartbeat;
use crate::service::inbox::{ServiceMessage, Startup};
use crate::service::machine_settings::machine_settings;
use crate::service::recording::Recorder;
use crate::service::service_loop::ServiceLoop;
use crate::service::shadow_controller::ShadowController;
use crate::service::supervisor::release_supervisor::ReleaseSupervisor;
use crate::service::supervisor::reporter::Reporter;
use crate::service::supervisor::slot_stops::StopCount;
use crate::systemd::SystemdManager;

/// Messages that wait for a service loop.
const INBOX_CAPACITY: usize = 1024;
/// Timeline entries that a slow follower may lag behind.
const ENTRIES_CAPACITY: usize = 256;

/// The timeline of a service, read from disk.
#[derive(Debug)]
pub(crate) struct LoadedTimeline {
    service: Arc<Service>,
    timeline: Timeline,
    entries: Vec<TimelineEntry>,
    truncated: Truncated,
    damage: Vec<String>,
    dir: PathBuf,
}

/// What all services of a daemon share.
#[derive(Debug)]
pub(crate) struct BuildContext<'a> {
    pub settings: &'a Settings,
    pub secret: SessionIdSecret,
    pub clock: Clock,
    pub manager: SystemdManager,
    /// Why the timelines are read: see [`Startup`].
    pub cause: &'a str,
}

/// A service that is not running yet.
#[derive(Debug)]
pub(crate) struct ServiceParts {
    pub handle: ServiceHandle,
    pub proxy: Proxy,
    pub pending: PendingService,
}

/// A service loop before its first iteration.
#[derive(Debug)]
pub(crate) struct PendingService {
    name: String,
    service_loop: ServiceLoop,
    messages: mpsc::Receiver<ServiceMessage>,
    startup: Startup,
}

impl PendingService {
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.service_loop.heartbeat()
    }

    /// Starts the loop.
    pub(crate) fn spawn(self) {
        let span = tracing::info_span!("service", service = self.name);
        let service_loop = self.service_loop.run(self.messages, self.startup).instrument(span);
        critical::spawn(format!("the loop of service {}", self.name), service_loop);
    }
}

impl LoadedTimeline {
    /// Reads the newest timeline of a service. What cannot be read keeps no service from starting.
    pub(crate) fn read(state: &StateDir, service: &Service) -> Self {
        let (dir, mut damage) = state.service_dir(&service.name);
        let opened = Timeline::open(&dir, &service.name);
        let OpenedTimeline { timeline, entries, truncated, damage: in_files } = opened;
        damage.extend(in_files);
        Self { service: Arc::new(service.clone()), timeline, entries, truncated, damage, dir }
    }

    pub(crate) fn service_name(&self) -> &str {
        &self.service.name
    }

    /// The time of the last entry.
    pub(crate) fn last_moment(&self) -> Option<Moment> {
        self.entries.last().map(|last| last.moment)
    }

    /// Builds the service on this listener.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub(crate) fn build(
        self,
        context: &BuildContext<'_>,
        listener: TcpListener,
    ) -> io::Result<ServiceParts> {
        let Self { service, timeline, entries, truncated, damage, dir } = self;
        let BuildContext { settings, secret, clock, manager, cause } = context;
        let (name, clock) = (service.name.clone(), *clock);
        let sessions = dir.join("sessions.jsonl");
        let proxy = Proxy::with_listener(listener, &service, *secret, clock, Some(&sessions))?;
        // The log of a bake shows for how long the last daemon still ran.
        let deploy = entries.last().map(|last| last.deploy);
        let observed_at = deploy.and_then(|deploy| record::last_signal_moment(&dir, deploy));
        let policy = service.policy.clone();
        let watch = Watch::restore_observed(policy, &entries, observed_at, clock.now());
        let (inbox, messages) = mpsc::channel(INBOX_CAPACITY);
        let (entries_sender, _) = broadcast::channel(ENTRIES_CAPACITY);
        let stop_count = StopCount::default();
        let supervisor = ReleaseSupervisor::new(
            settings.state_dir.clone(),
            manager.clone(),
            Reporter::new(inbox.clone()),
            stop_count.clone(),
        );
        let entries_of_handle = entries_sender.clone();
        let handle = ServiceHandle::new(inbox.clone(), entries_of_handle, dir.clone(), stop_count);
        let mut service_loop = ServiceLoop {
            machine: ServiceMachine::new(watch, machine_settings(&service)),
            deployed_with: Arc::clone(&service),
            service,
            clock,
            recorder: Recorder::new(timeline, entries_sender),
            bake_log: BakeLog::new(dir),
            proxy: proxy.clone(),
            supervisor,
            artifact_guard: ArtifactGuard::new(&settings.podman),
            shadow_controller: ShadowController::default(),
            traffic: BTreeMap::new(),
            inbox,
            awaits_deploy: BTreeSet::new(),
            call_usage: CallUsage::default(),
            ticks: 0,
            heartbeat: Heartbeat::default(),
        };
        service_loop.restore_outcomes(&entries);
        service_loop.restore_identities(recorded_identities(&entries));
        let startup = Startup { cause: (*cause).to_owned(), truncated, damage };
        let pending = PendingService { name, service_loop, messages, startup };
        Ok(ServiceParts { handle, proxy, pending })
    }
}

/// The names that releases gave for themselves when they were deployed, as far as the newest timeline
/// holds them.
fn recorded_identities(entries: &[TimelineEntry]) -> impl Iterator<Item = (ReleaseNumber, String)> {
    entries.iter().filter_map(|entry| match &entry.event {
        TimelineEvent::Ready { contract: Some(contract), .. } if !contract.server.is_empty() => {
            Some((entry.deploy, contract.server.clone()))
        }
        _ => None,
    })
}
