//! A daemon that owns the state: its service loops, listeners, and control API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::{Clock, monotonic};
use crate::config::{Address, Settings};
use crate::control::Status;
use crate::critical;
use crate::daemon::error::StartError;
use crate::daemon::heartbeat::HeartbeatMonitor;
use crate::daemon::incidents::Incidents;
use crate::daemon::listeners::Listeners;
use crate::daemon::predecessor::Predecessor;
use crate::daemon::reload::ReloadRequest;
use crate::daemon::reporting::Services;
use crate::daemon::services::{Proxies, ServiceHandles, longest_drain};
use crate::daemon::{control_api, metrics, notifier, reload};
use crate::model::Moment;
use crate::notify::Delivered;
use crate::proxy::Proxy;
use crate::record::StateDir;
use crate::service::build::{BuildContext, LoadedTimeline, PendingService, ServiceParts};
use crate::service::inbox::Shutdown;
use crate::systemd::inherited_listeners::InheritedListeners;
use crate::systemd::{SystemdManager, notify};
use crate::web::{self, PageListener};

/// How often [`Instance::wait_until_started`] reads the heartbeats.
const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(2);

/// The status page: where it listens, and the hosts that it accepts.
#[derive(Debug)]
struct StatusPage {
    listener: Arc<PageListener>,
    hosts: Arc<BTreeSet<String>>,
}

/// All parts of a daemon that owns the state.
#[derive(Debug)]
pub(super) struct Instance {
    handles: ServiceHandles,
    proxies: Proxies,
    /// The previous daemon, while it drains its open requests.
    predecessor: Option<Predecessor>,
    incidents: Incidents,
    /// Clients that ask for a reload.
    reloads: (mpsc::Sender<ReloadRequest>, mpsc::Receiver<ReloadRequest>),
    /// What the channels delivered, until its recording starts.
    delivered: Option<mpsc::Receiver<Delivered>>,
    /// Locked while this lives.
    state: StateDir,
    pending_services: Vec<PendingService>,
    control: Arc<UnixListener>,
    metrics: Option<Arc<TcpListener>>,
    page: Option<StatusPage>,
    newly_bound: BTreeSet<String>,
    unclaimed: InheritedListeners,
    monitor: HeartbeatMonitor,
    /// Shared with the services.
    manager: SystemdManager,
    tasks: Vec<JoinHandle<()>>,
    notifier: Option<JoinHandle<()>>,
}

/// What remains of an instance that gave the state away.
#[derive(Debug)]
pub(super) struct Draining {
    pub proxies: Proxies,
    pub predecessor: Option<Predecessor>,
}

impl Instance {
    /// Reads the state. It has no effect before [`Self::start`]. `cause` goes into the timelines.
    ///
    /// # Errors
    /// When the key of the host cannot be read.
    pub(super) fn new(
        settings: &Settings,
        state: StateDir,
        listeners: Listeners,
        cause: &str,
    ) -> Result<Self, StartError> {
        let secret = state.host_key()?;
        let timelines = settings.services.values().map(|it| LoadedTimeline::read(&state, it));
        let timelines: Vec<_> = timelines.collect();
        let last_moment = timelines.iter().filter_map(LoadedTimeline::last_moment).max();
        let clock = Clock::start(last_moment.unwrap_or(Moment(0)));
        let manager = SystemdManager::default();
        let context = BuildContext { settings, secret, clock, manager: manager.clone(), cause };
        let Listeners { mut services, newly_bound, control, metrics, page, unclaimed } = listeners;
        let (mut handles, mut proxies, mut pending_services) =
            (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for timeline in timelines {
            let name = timeline.service_name().to_owned();
            let Some(listener) = services.remove(&name) else { continue };
            let parts = timeline.build(&context, listener).map_err(|error| {
                StartError::new(format!("cannot use the listener of {name}"), error)
            })?;
            let ServiceParts { handle, proxy, pending } = parts;
            handles.insert(name.clone(), handle);
            proxies.insert(name, proxy);
            pending_services.push(pending);
        }
        let heartbeats = pending_services.iter().map(PendingService::heartbeat).collect();
        let handles = Arc::new(handles);
        let proxies: Proxies = Arc::new(proxies);
        let (incidents, delivered) =
            Incidents::new(settings, &handles, Arc::clone(&proxies), clock);
        Ok(Self {
            incidents,
            reloads: reload::requests(),
            delivered: Some(delivered),
            handles,
            proxies,
            predecessor: None,
            state,
            pending_services,
            control: Arc::new(control),
            metrics: metrics.map(Arc::new),
            page: page.zip(settings.page.as_ref()).map(|(listener, page)| StatusPage {
                listener: Arc::new(listener),
                hosts: Arc::new(page.hosts.clone()),
            }),
            newly_bound,
            unclaimed,
            monitor: HeartbeatMonitor::new(heartbeats, monotonic()),
            manager,
            tasks: Vec::new(),
            notifier: None,
        })
    }

    pub(super) fn handles(&self) -> &ServiceHandles {
        &self.handles
    }

    pub(super) fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// The next client that asks for a reload.
    pub(super) async fn next_reload(&mut self) -> ReloadRequest {
        match self.reloads.1.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }

    pub(super) fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    pub(super) fn control_listener(&self) -> &UnixListener {
        &self.control
    }

    pub(super) fn metrics_listener(&self) -> Option<&TcpListener> {
        self.metrics.as_deref()
    }

    pub(super) fn page_listener(&self) -> Option<&PageListener> {
        self.page.as_ref().map(|page| &*page.listener)
    }

    /// Sets the daemon that still drains its open requests.
    pub(super) fn set_predecessor(&mut self, predecessor: Predecessor) {
        self.predecessor = Some(predecessor);
    }

    /// Starts all loops. Each accepts clients once it has recovered its service.
    pub(super) fn start(&mut self) {
        self.pending_services.drain(..).for_each(PendingService::spawn);
        if let Some(listener) = &self.metrics {
            let server = metrics::serve(Arc::clone(listener), self.services());
            self.tasks.push(critical::spawn_endless("the metrics server".to_owned(), server));
        }
        if let Some(StatusPage { listener, hosts }) = &self.page {
            let (listener, hosts) = (Arc::clone(listener), Arc::clone(hosts));
            let incidents = self.incidents.clone();
            let complete = Arc::new(move |status: &mut Status| incidents.complete(status));
            let server = web::serve(listener, hosts, Arc::clone(&self.handles), complete);
            self.tasks.push(critical::spawn_endless("the status page".to_owned(), server));
        }
        self.incidents.start_channels();
        if let Some(delivered) = self.delivered.take() {
            let handles = Arc::clone(&self.handles);
            let recording = self.incidents.clone().record_deliveries(delivered, handles);
            let name = "the recording of notifications".to_owned();
            self.tasks.push(critical::spawn_endless(name, recording));
        }
        let pages = self.incidents.clone().notify_of_pages();
        self.tasks.push(critical::spawn_endless("the notices of log messages".to_owned(), pages));
        let reminders = self.incidents.clone().remind();
        self.tasks.push(critical::spawn_endless("the reminders".to_owned(), reminders));
        for (name, handle) in self.handles.iter() {
            self.tasks.push(self.incidents.spawn_follower(name, handle));
        }
        let server = control_api::serve(Arc::clone(&self.control), self.services());
        self.tasks.push(critical::spawn_endless("the control server".to_owned(), server));
    }

    fn services(&self) -> Services {
        Services {
            handles: Arc::clone(&self.handles),
            incidents: self.incidents.clone(),
            reloads: self.reloads.0.clone(),
        }
    }

    /// Waits until every service has recovered.
    pub(super) async fn wait_until_started(&mut self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.monitor.all_started() {
            ticks.tick().await;
            self.monitor.poll(monotonic());
        }
    }

    /// Reports to the service manager from now on, and stores new listeners with it.
    pub(super) async fn start_notifier(&mut self, settings: &Settings) {
        for name in &self.newly_bound {
            let listener = self.proxies.get(name).map(Proxy::duplicate_listener);
            notify::store_fd(name.clone(), listener.and_then(|it| it.ok().flatten())).await;
        }
        close_unclaimed(std::mem::take(&mut self.unclaimed), settings).await;
        let notifier = notifier::run(self.monitor.clone(), self.incidents.clone());
        self.notifier = Some(critical::spawn_endless("the notifier".to_owned(), notifier));
    }

    /// Stops to report to the service manager.
    pub(super) fn stop_notifier(&mut self) {
        self.notifier.take().iter().for_each(JoinHandle::abort);
    }

    /// From now on, clients of the control API and of the metrics wait in the backlog, and notices in the
    /// outbox.
    pub(super) fn stop_control_api(&mut self) {
        self.incidents.notifier().stop();
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// Gives the state away: unlocks it, and keeps what drains.
    pub(super) fn into_draining(self) -> Draining {
        let Self { state, proxies, predecessor, .. } = self;
        drop(state);
        Draining { proxies, predecessor }
    }

    /// Stops. Open requests may finish if a service manager waits for that. The releases stop, too,
    /// unless the daemon starts again at once.
    pub(super) async fn shut_down(mut self, settings: &Settings) {
        self.stop_notifier();
        notify::stopping().await;
        let shutdown = match notify::is_managed() {
            false => Shutdown::Immediate,
            true if notify::is_restarting(&self.manager).await => Shutdown::Restart,
            true => Shutdown::Drain,
        };
        if shutdown.is_restart() {
            tracing::info!("the service manager restarts the daemon: the releases keep running");
        }
        let predecessor = self.predecessor.take();
        notify::extend_timeout_while(async {
            if let Some(predecessor) = predecessor {
                // Its open requests need the releases, and its changes arrive here.
                predecessor.wait_until_gone(longest_drain(settings)).await;
            }
            stop_services(&self.handles, settings, shutdown).await;
        })
        .await;
        self.stop_control_api();
        let _ = std::fs::remove_file(&settings.control_socket);
        if let Some(Address::Unix(path)) = settings.page.as_ref().map(|page| &page.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Closes inherited listeners that no service uses: their clients would wait for ever.
async fn close_unclaimed(inherited: InheritedListeners, settings: &Settings) {
    for (name, address) in inherited.into_unclaimed() {
        let listen_addresses: Vec<_> =
            settings.services.values().map(|it| it.listen.to_string()).collect();
        tracing::warn!(
            "no service listens on {address}, the address of the inherited listener {name:?}; if a \
             socket unit made it, set its ListenStream= to one of {}",
            listen_addresses.join(", ")
        );
        if !settings.services.contains_key(&name) {
            notify::store_fd(name, None).await;
        }
    }
}

async fn stop_services(handles: &ServiceHandles, settings: &Settings, shutdown: Shutdown) {
    let mut pending = Vec::new();
    for (name, handle) in handles.iter() {
        let timeout = settings.services.get(name).map(|it| shutdown.timeout(it));
        let timeout = timeout.unwrap_or_default();
        if let Some(stopped) = handle.shut_down(shutdown).await {
            pending.push((name, timeout, tokio::time::timeout(timeout, stopped)));
        }
    }
    for (name, timeout, stopped) in pending {
        if stopped.await.is_err() {
            tracing::error!(service = name, "did not stop within {} s", timeout.as_secs());
        }
    }
}
