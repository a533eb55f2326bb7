//! A daemon in charge of the state: its keepers, and what clients connect to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{Service, Settings};
use crate::daemon::control_api::{ServiceHandle, ServiceHandles};
use crate::daemon::handover::{ListenerFds, Predecessor};
use crate::daemon::listeners::Listeners;
use crate::daemon::{StartError, control_api, metrics, notifier};
use crate::decide::Watch;
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::proxy::{Proxy, SessionIdSecret};
use crate::record::{StateDir, StateError, Timeline, Truncated};
use crate::service::artifact_guard::ArtifactGuard;
use crate::service::heartbeat::HeartbeatMonitor;
use crate::service::inbox::{ServiceMessage, Shutdown, Startup};
use crate::service::service_loop::ServiceLoop;
use crate::service::supervisor::release_supervisor::ReleaseSupervisor;
use crate::systemd::SystemdManager;
use crate::systemd::inherited_listeners::InheritedListeners;

/// What a keeper has not yet taken in.
const INBOX_CAPACITY: usize = 1024;
/// Lines of the timeline that a slow follower may lag behind.
const ENTRIES_CAPACITY: usize = 256;
/// How often it is looked whether every service is taken up.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The proxies, by service.
pub(super) type Proxies = Arc<BTreeMap<String, Proxy>>;

/// All of a daemon that is in charge.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) handles: ServiceHandles,
    pub(super) proxies: Proxies,
    /// The daemon before this one, if it still ends what is open in it.
    pub(super) predecessor: Option<Predecessor>,
    /// Locked as long as this lives.
    pub(super) state: StateDir,
    pending_services: Vec<PendingService>,
    control: Arc<UnixListener>,
    metrics: Option<Arc<TcpListener>>,
    newly_bound: BTreeSet<String>,
    unclaimed: InheritedListeners,
    monitor: HeartbeatMonitor,
    tasks: Vec<JoinHandle<()>>,
    notifier: Option<JoinHandle<()>>,
}

/// A keeper before its first round.
type PendingService = (ServiceLoop, mpsc::Receiver<ServiceMessage>, Startup);

/// A service whose timeline was read.
struct LoadedTimeline {
    service: Arc<Service>,
    timeline: Timeline,
    entries: Vec<TimelineEntry>,
    truncated: Truncated,
    dir: std::path::PathBuf,
}

impl Instance {
    /// Takes up the state; nothing happens before [`Self::start`]. `cause` goes into the timelines.
    ///
    /// # Errors
    /// When a timeline or the sessions can not be read.
    pub(super) fn new(
        settings: &Settings,
        state: StateDir,
        listeners: Listeners,
        cause: &str,
    ) -> Result<Self, StartError> {
        let key = state.host_key()?;
        let mut loaded = Vec::new();
        for service in settings.services.values() {
            loaded.push(load_timeline(&state, service)?);
        }
        let last_moment =
            loaded.iter().filter_map(|it| it.entries.last()).map(|last| last.moment).max();
        let clock = Clock::start(last_moment.unwrap_or(Moment(0)));
        let manager = SystemdManager::default();
        let Listeners { mut services, newly_bound, control, metrics, unclaimed } = listeners;
        let (mut handles, mut proxies, mut pending_services) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for timeline in loaded {
            let name = timeline.service.name.clone();
            let Some(listener) = services.remove(&name) else { continue };
            let startup = Startup { cause: cause.to_owned(), truncated: timeline.truncated };
            let (handle, proxy, service_loop, messages) =
                build_service(timeline, settings, (key, clock, &manager), listener)?;
            handles.insert(name.clone(), handle);
            proxies.insert(name, proxy);
            pending_services.push((service_loop, messages, startup));
        }
        let heartbeats =
            pending_services.iter().map(|(service_loop, ..)| service_loop.heartbeat()).collect();
        Ok(Self {
            handles: Arc::new(handles),
            proxies: Arc::new(proxies),
            predecessor: None,
            state,
            pending_services,
            control: Arc::new(control),
            metrics: metrics.map(Arc::new),
            newly_bound,
            unclaimed,
            monitor: HeartbeatMonitor::new(heartbeats, Instant::now()),
            tasks: Vec::new(),
            notifier: None,
        })
    }
    /// Begins: clients are let in as soon as their service is taken up.
    pub(super) fn start(&mut self) {
        for (service_loop, messages, startup) in self.pending_services.drain(..) {
            tokio::spawn(service_loop.run(messages, startup));
        }
        if let Some(listener) = &self.metrics {
            let server = metrics::serve(Arc::clone(listener), Arc::clone(&self.handles));
            self.tasks.push(tokio::spawn(server));
        }
        let server = control_api::serve(Arc::clone(&self.control), Arc::clone(&self.handles));
        self.tasks.push(tokio::spawn(server));
    }

    /// Waits until every service is taken up.
    pub(super) async fn wait_until_started(&mut self) {
        loop {
            self.monitor.poll(Instant::now());
            if self.monitor.all_started() {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The service manager hears of it, from now on.
    pub(super) fn start_notifier(&mut self, settings: &Settings) {
        for name in &self.newly_bound {
            notifier::remove_fd(name);
            if let Some(Ok(Some(listener))) = self.proxies.get(name).map(Proxy::duplicate_listener)
            {
                notifier::store_fd(name, listener.as_fd());
            }
        }
        close_unclaimed(std::mem::take(&mut self.unclaimed), settings);
        self.notifier = Some(tokio::spawn(notifier::run(self.monitor.clone())));
    }

    /// Nothing more is said to the service manager.
    pub(super) fn stop_notifier(&mut self) {
        self.notifier.take().iter().for_each(JoinHandle::abort);
    }

    /// Verbs and collectors wait in the backlog, from now on.
    pub(super) fn stop_control_api(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// All listeners once more, for whoever takes over.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(super) fn duplicate_listeners(&self) -> io::Result<ListenerFds> {
        let mut listeners = ListenerFds::default();
        for (name, proxy) in self.proxies.iter() {
            if let Some(listener) = proxy.duplicate_listener()? {
                listeners.add_service(name, listener);
            }
        }
        listeners.add_control(self.control.as_fd().try_clone_to_owned()?);
        if let Some(listener) = &self.metrics {
            listeners.add_metrics(listener.as_fd().try_clone_to_owned()?);
        }
        Ok(listeners)
    }

    /// Ends, with all that is open, and with the releases unless it is started again at once.
    pub(super) async fn shut_down(mut self, settings: &Settings) {
        self.stop_notifier();
        notifier::stopping().await;
        let shutdown =
            Shutdown { drain: notifier::is_managed(), restart: notifier::is_restarting().await };
        if shutdown.restart {
            tracing::info!("is started again at once: the releases go on");
        }
        let predecessor = self.predecessor.take();
        notifier::extend_timeout_while(async {
            if let Some(predecessor) = predecessor {
                // What is open there needs the releases, and is told here.
                predecessor.wait_until_gone(longest_drain(settings)).await;
            }
            stop_services(&self.handles, settings, shutdown).await;
        })
        .await;
        self.stop_control_api();
        let _ = std::fs::remove_file(&settings.control_socket);
    }
}

/// How long what is open may take, in the most patient service.
pub(super) fn longest_drain(settings: &Settings) -> Duration {
    settings.services.values().map(|it| it.policy.drain_timeout).max().unwrap_or_default()
}

fn load_timeline(state: &StateDir, service: &Service) -> Result<LoadedTimeline, StateError> {
    let dir = state.service_dir(&service.name)?;
    let (timeline, entries, truncated) = Timeline::open(&dir, &service.name)?;
    Ok(LoadedTimeline { service: Arc::new(service.clone()), timeline, entries, truncated, dir })
}

/// What releases called themselves when they were deployed, as far as the newest timeline tells.
fn recorded_identities(entries: &[TimelineEntry]) -> impl Iterator<Item = (ReleaseNumber, String)> {
    entries.iter().filter_map(|entry| match &entry.event {
        TimelineEvent::Ready { contract: Some(contract), .. } if !contract.server.is_empty() => {
            Some((entry.deploy, contract.server.clone()))
        }
        _ => None,
    })
}

type ServiceParts = (ServiceHandle, Proxy, ServiceLoop, mpsc::Receiver<ServiceMessage>);

fn build_service(
    loaded: LoadedTimeline,
    settings: &Settings,
    (key, clock, manager): (SessionIdSecret, Clock, &SystemdManager),
    listener: TcpListener,
) -> Result<ServiceParts, StartError> {
    let LoadedTimeline { service, timeline, entries, dir, .. } = loaded;
    let sessions = dir.join("sessions.jsonl");
    let proxy = Proxy::with_listener(listener, &service, key, clock, Some(&sessions)).map_err(
        |source| {
            StartError::new(
                format!("failed to use {} for {}", sessions.display(), service.name),
                source,
            )
        },
    )?;
    let watch = Watch::restore(service.policy.clone(), &entries, clock.now());
    let (inbox, messages) = mpsc::channel(INBOX_CAPACITY);
    let (entries_sender, _) = broadcast::channel(ENTRIES_CAPACITY);
    let supervisor =
        ReleaseSupervisor::new(settings.state_dir.clone(), manager.clone(), clock, inbox.clone());
    let artifact_guard = ArtifactGuard::new(&settings.podman);
    let handle =
        ServiceHandle { inbox: inbox.clone(), entries: entries_sender.clone(), dir: dir.clone() };
    let loop_proxy = proxy.clone();
    let mut service_loop = ServiceLoop::new(
        service,
        clock,
        watch,
        timeline,
        loop_proxy,
        (supervisor, artifact_guard),
        inbox,
        entries_sender,
        dir,
    );
    service_loop.restore_identities(recorded_identities(&entries));
    Ok((handle, proxy, service_loop, messages))
}

/// Closes inherited listeners that no service has: clients would wait in them for ever.
fn close_unclaimed(inherited: InheritedListeners, settings: &Settings) {
    for (name, address) in inherited.into_unclaimed() {
        let listen_addresses: Vec<_> =
            settings.services.values().map(|it| it.listen.to_string()).collect();
        tracing::warn!(
            "no service listens on {address}, which {name:?} passed on; if it is a socket unit, its \
             ListenStream= has to be one of {}",
            listen_addresses.join(", ")
        );
        if !settings.services.contains_key(&name) {
            notifier::remove_fd(&name);
        }
    }
}

async fn stop_services(handles: &ServiceHandles, settings: &Settings, shutdown: Shutdown) {
    let mut pending = Vec::new();
    for (name, handle) in handles.iter() {
        let (reply, stop_confirmed) = oneshot::channel();
        let timeout = settings.services.get(name).map(|it| ServiceLoop::stop_timeout(it, shutdown));
        let timeout = timeout.unwrap_or_default();
        if handle.inbox.send(ServiceMessage::Stop(shutdown, reply)).await.is_ok() {
            pending.push((name, tokio::time::timeout(timeout, stop_confirmed)));
        }
    }
    for (name, stop_confirmed) in pending {
        if stop_confirmed.await.is_err() {
            tracing::error!(service = name, "did not stop in time");
        }
    }
}
