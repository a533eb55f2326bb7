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

use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::{Service, Settings};
use crate::decide::Watch;
use crate::model::{Entry, Fact, Moment, Number};
use crate::proxy::{Key, Proxy};
use crate::record::{State, StateError, Timeline, Torn};

use super::crew::Crew;
use super::desk::{self, Handle, Handles};
use super::handover::{Before, Parcel};
use super::inherited::Inherited;
use super::input::{Begin, Ending, Input};
use super::keeper::Keeper;
use super::listeners::Listeners;
use super::pulse::Watcher;
use super::seals::Seals;
use super::{StartError, herald, metrics};

/// What a keeper has not yet taken in.
const INBOX_MAX: usize = 1024;
/// Lines of the timeline that a slow follower may lag behind.
const ENTRIES_MAX: usize = 256;
/// How often it is looked whether every service is taken up.
const LOOK: Duration = Duration::from_millis(2);

/// The proxies, by service.
pub(super) type Proxies = Arc<BTreeMap<String, Proxy>>;

/// All of a daemon that is in charge.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) handles: Handles,
    pub(super) proxies: Proxies,
    /// The daemon before this one, if it still ends what is open in it.
    pub(super) before: Option<Before>,
    /// Locked as long as this lives.
    pub(super) state: State,
    idle: Vec<Idle>,
    control: Arc<UnixListener>,
    metrics: Option<Arc<TcpListener>>,
    fresh: BTreeSet<String>,
    left: Inherited,
    watcher: Watcher,
    tasks: Vec<JoinHandle<()>>,
    herald: Option<JoinHandle<()>>,
}

/// A keeper before its first round.
type Idle = (Keeper, mpsc::Receiver<Input>, Begin);

/// A service whose timeline was read.
struct Read {
    service: Arc<Service>,
    timeline: Timeline,
    entries: Vec<Entry>,
    torn: Torn,
    dir: std::path::PathBuf,
}

impl Reign {
    /// Takes up the state; nothing happens before [`Self::open`]. `who` goes into the timelines.
    ///
    /// # Errors
    /// When a timeline or the sessions can not be read.
    pub(super) fn new(
        settings: &Settings,
        state: State,
        listeners: Listeners,
        who: &str,
    ) -> Result<Self, StartError> {
        let key = state.key()?;
        let mut read = Vec::new();
        for service in settings.services.values() {
            read.push(read_back(&state, service)?);
        }
        let recorded = read.iter().filter_map(|it| it.entries.last()).map(|last| last.moment).max();
        let clock = Clock::start(recorded.unwrap_or(Moment(0)));
        let bus = Bus::default();
        let Listeners { mut services, fresh, control, metrics, left } = listeners;
        let (mut handles, mut proxies, mut idle) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for it in read {
            let name = it.service.name.clone();
            let Some(listener) = services.remove(&name) else { continue };
            let begin = Begin { who: who.to_owned(), torn: it.torn };
            let (handle, proxy, keeper, inbox) = hire(it, settings, (key, clock, &bus), listener)?;
            handles.insert(name.clone(), handle);
            proxies.insert(name, proxy);
            idle.push((keeper, inbox, begin));
        }
        let pulses = idle.iter().map(|(keeper, ..)| keeper.pulse()).collect();
        Ok(Self {
            handles: Arc::new(handles),
            proxies: Arc::new(proxies),
            before: None,
            state,
            idle,
            control: Arc::new(control),
            metrics: metrics.map(Arc::new),
            fresh,
            left,
            watcher: Watcher::new(pulses, Instant::now()),
            tasks: Vec::new(),
            herald: None,
        })
    }
    /// Begins: clients are let in as soon as their service is taken up.
    pub(super) fn open(&mut self) {
        for (keeper, inbox, begin) in self.idle.drain(..) {
            tokio::spawn(keeper.run(inbox, begin));
        }
        if let Some(listener) = &self.metrics {
            let served = metrics::serve(Arc::clone(listener), Arc::clone(&self.handles));
            self.tasks.push(tokio::spawn(served));
        }
        let served = desk::serve(Arc::clone(&self.control), Arc::clone(&self.handles));
        self.tasks.push(tokio::spawn(served));
    }

    /// Waits until every service is taken up.
    pub(super) async fn began(&mut self) {
        loop {
            self.watcher.look(Instant::now());
            if self.watcher.all_began() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The service manager hears of it, from now on.
    pub(super) fn announce(&mut self, settings: &Settings) {
        for name in &self.fresh {
            herald::forget(name);
            if let Some(Ok(Some(listener))) = self.proxies.get(name).map(Proxy::listener) {
                herald::keep(name, listener.as_fd());
            }
        }
        let_go(std::mem::take(&mut self.left), settings);
        self.herald = Some(tokio::spawn(herald::tell(self.watcher.clone())));
    }

    /// Nothing more is said to the service manager.
    pub(super) fn hush(&mut self) {
        self.herald.take().iter().for_each(JoinHandle::abort);
    }

    /// Verbs and collectors wait in the backlog, from now on.
    pub(super) fn leave_desk(&mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
    }

    /// All listeners once more, for whoever takes over.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(super) fn parcel(&self) -> io::Result<Parcel> {
        let mut parcel = Parcel::default();
        for (name, proxy) in self.proxies.iter() {
            if let Some(listener) = proxy.listener()? {
                parcel.service(name, listener);
            }
        }
        parcel.control(self.control.as_fd().try_clone_to_owned()?);
        if let Some(listener) = &self.metrics {
            parcel.metrics(listener.as_fd().try_clone_to_owned()?);
        }
        Ok(parcel)
    }

    /// Ends, with all that is open, and with the releases unless it is started again at once.
    pub(super) async fn end(mut self, settings: &Settings) {
        self.hush();
        herald::stopping().await;
        let ending = Ending { gently: herald::is_managed(), again: herald::restarts().await };
        if ending.again {
            tracing::info!("is started again at once: the releases go on");
        }
        let before = self.before.take();
        herald::patiently(async {
            if let Some(before) = before {
                // What is open there needs the releases, and is told here.
                before.gone(longest_drain(settings)).await;
            }
            stop(&self.handles, settings, ending).await;
        })
        .await;
        self.leave_desk();
        let _ = std::fs::remove_file(&settings.control_socket);
    }
}

/// How long what is open may take, in the most patient service.
pub(super) fn longest_drain(settings: &Settings) -> Duration {
    settings.services.values().map(|it| it.policy.drain).max().unwrap_or_default()
}

fn read_back(state: &State, service: &Service) -> Result<Read, StateError> {
    let dir = state.service(&service.name)?;
    let (timeline, entries, torn) = Timeline::open(&dir, &service.name)?;
    Ok(Read { service: Arc::new(service.clone()), timeline, entries, torn, dir })
}

/// What releases called themselves when they were deployed, as far as the newest timeline tells.
fn names(entries: &[Entry]) -> impl Iterator<Item = (Number, String)> {
    entries.iter().filter_map(|entry| match &entry.fact {
        Fact::Ready { contract: Some(contract), .. } if !contract.server.is_empty() => {
            Some((entry.deploy, contract.server.clone()))
        }
        _ => None,
    })
}

type Hired = (Handle, Proxy, Keeper, mpsc::Receiver<Input>);

fn hire(
    read: Read,
    settings: &Settings,
    (key, clock, bus): (Key, Clock, &Bus),
    listener: TcpListener,
) -> Result<Hired, StartError> {
    let Read { service, timeline, entries, dir, .. } = read;
    let sessions = dir.join("sessions.jsonl");
    let proxy = Proxy::on(listener, &service, key, clock, Some(&sessions)).map_err(|source| {
        StartError::new(
            format!("failed to use {} for {}", sessions.display(), service.name),
            source,
        )
    })?;
    let watch = Watch::restore(service.policy.clone(), &entries, clock.now());
    let (outbox, inbox) = mpsc::channel(INBOX_MAX);
    let (lines, _) = broadcast::channel(ENTRIES_MAX);
    let crew = Crew::new(settings.state_dir.clone(), bus.clone(), clock, outbox.clone());
    let seals = Seals::new(&settings.podman);
    let handle = Handle { inbox: outbox.clone(), entries: lines.clone(), dir: dir.clone() };
    let front = proxy.clone();
    let mut keeper =
        Keeper::new(service, clock, watch, timeline, front, (crew, seals), outbox, lines, dir);
    keeper.names.extend(names(&entries));
    Ok((handle, proxy, keeper, inbox))
}

/// Closes inherited listeners that no service has: clients would wait in them for ever.
fn let_go(inherited: Inherited, settings: &Settings) {
    for (name, address) in inherited.unclaimed() {
        let wanted: Vec<_> = settings.services.values().map(|it| it.listen.to_string()).collect();
        tracing::warn!(
            "no service listens on {address}, which {name:?} passed on; if it is a socket unit, its \
             ListenStream= has to be one of {}",
            wanted.join(", ")
        );
        if !settings.services.contains_key(&name) {
            herald::forget(&name);
        }
    }
}

async fn stop(handles: &Handles, settings: &Settings, ending: Ending) {
    let mut stopping = Vec::new();
    for (name, handle) in handles.iter() {
        let (done, stopped) = oneshot::channel();
        let patience = settings.services.get(name).map(|it| Keeper::patience(it, ending));
        let patience = patience.unwrap_or_default();
        if handle.inbox.send(Input::Stop(ending, done)).await.is_ok() {
            stopping.push((name, tokio::time::timeout(patience, stopped)));
        }
    }
    for (name, stopped) in stopping {
        if stopped.await.is_err() {
            tracing::error!(service = name, "did not stop in time");
        }
    }
}
