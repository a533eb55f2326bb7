//! Puts the parts together and keeps them going until told to stop.
//!
//! Each service has a [`keeper`] with a loop of its own, in which all that happens to the service
//! happens in order. Around it, tasks that only carry: the proxy's connections, the [`crew`]'s
//! processes and probes, the [`desk`] where verbs ask.

mod crew;
mod desk;
mod effects;
mod gauge;
mod herald;
mod inherited;
mod input;
mod keeper;
mod ledger;
mod leftovers;
mod lives;
mod metrics;
mod pulse;
mod questions;
mod seals;
mod shadows;
mod status;
mod trials;
mod units;
mod uses;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::{self, Runtime, Service, Settings};
use crate::control::server;
use crate::decide::Watch;
use crate::model::{Entry, Fact, Moment, Number, Slot};
use crate::proxy::{self, Key, Proxy};
use crate::record::{State, StateError, Timeline, Torn};

use crew::Crew;
use desk::{Handle, Handles};
use input::{Ending, Input};
use keeper::Keeper;
use pulse::Watcher;
use seals::Seals;

pub use inherited::Inherited;

/// What a keeper has not yet taken in.
const INBOX_MAX: usize = 1024;
/// Lines of the timeline that a slow follower may lag behind.
const ENTRIES_MAX: usize = 256;

/// Why the daemon can not start: what was tried, and what came of it.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

/// A service whose timeline was read.
struct Read {
    service: Arc<Service>,
    timeline: Timeline,
    entries: Vec<Entry>,
    torn: Torn,
    dir: std::path::PathBuf,
}

/// Runs the daemon until SIGTERM or SIGINT; SIGHUP reads the configuration at `path` again.
///
/// # Errors
/// When something it needs is not to be had: the state folder, an address, the control socket.
pub async fn run(
    settings: Settings,
    path: &Path,
    mut inherited: Inherited,
) -> Result<(), StartError> {
    raise_limits();
    let state = State::open(&settings.state_dir)?;
    let key = state.key()?;
    let mut read = Vec::new();
    for service in settings.services.values() {
        read.push(read_back(&state, service)?);
    }
    let recorded = read.iter().filter_map(|it| it.entries.last()).map(|last| last.moment).max();
    let clock = Clock::start(recorded.unwrap_or(Moment(0)));
    let control = server::listen(&settings.control_socket).map_err(|source| {
        let what = format!("failed to listen on {}", settings.control_socket.display());
        StartError { what, source: source.into() }
    })?;
    let metrics = match settings.metrics {
        Some(address) => Some(listen_for_metrics(address).await?),
        None => None,
    };
    let bus = Bus::default();
    let mut handles = BTreeMap::new();
    let mut ready = Vec::new();
    for it in read {
        let name = it.service.name.clone();
        let (handle, keeper, inbox, torn) =
            hire(it, &settings, (key, clock, &bus), &mut inherited)?;
        handles.insert(name, handle);
        ready.push((keeper, inbox, torn));
    }
    let_go(inherited, &settings);
    // Only now, when nothing can fail any more, does anything happen.
    let pulses = ready.iter().map(|(keeper, ..)| keeper.pulse()).collect();
    for (keeper, inbox, torn) in ready {
        tokio::spawn(keeper.run(inbox, torn));
    }
    let handles = Arc::new(handles);
    if let Some(listener) = metrics {
        tokio::spawn(metrics::serve(listener, Arc::clone(&handles)));
    }
    let herald = tokio::spawn(herald::tell(Watcher::new(pulses, Instant::now())));
    let served = serve(control, handles, settings, path, herald.abort_handle()).await;
    herald.abort();
    served
}

async fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| {
        let what = format!("failed to listen on {address} for metrics");
        StartError { what, source: source.into() }
    })
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

/// Each connection takes an open file; the usual soft limit of 1,024 is for programs that use
/// `select`. Where it can not be raised, fewer connections are served.
fn raise_limits() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
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

type Hired = (Handle, Keeper, mpsc::Receiver<Input>, Torn);

fn hire(
    read: Read,
    settings: &Settings,
    (key, clock, bus): (Key, Clock, &Bus),
    inherited: &mut Inherited,
) -> Result<Hired, StartError> {
    let Read { service, timeline, entries, torn, dir } = read;
    let sessions = dir.join("sessions.jsonl");
    let listen = |inherited: &mut Inherited| {
        let listener = match inherited.claim(service.listen) {
            Some(listener) => TcpListener::from_std(listener)?,
            None => {
                let listener = proxy::bind(service.listen)?;
                herald::forget(&service.name);
                herald::keep(&service.name, &listener);
                listener
            }
        };
        Proxy::on(listener, &service, key, clock, Some(&sessions))
    };
    let proxy = listen(inherited).map_err(|source: std::io::Error| {
        let (name, sessions) = (&service.name, sessions.display());
        let what =
            format!("failed to listen on {} for {name}, or to use {sessions}", service.listen);
        StartError { what, source: source.into() }
    })?;
    let watch = Watch::restore(service.policy.clone(), &entries, clock.now());
    let (outbox, inbox) = mpsc::channel(INBOX_MAX);
    let (lines, _) = broadcast::channel(ENTRIES_MAX);
    let crew = Crew::new(settings.state_dir.clone(), bus.clone(), clock, outbox.clone());
    let seals = Seals::new(&settings.podman);
    let handle = Handle { inbox: outbox.clone(), entries: lines.clone(), dir: dir.clone() };
    let mut keeper =
        Keeper::new(service, clock, watch, timeline, proxy, (crew, seals), outbox, lines, dir);
    keeper.names.extend(names(&entries));
    Ok((handle, keeper, inbox, torn))
}

async fn serve(
    control: UnixListener,
    handles: Handles,
    mut settings: Settings,
    path: &Path,
    herald: AbortHandle,
) -> Result<(), StartError> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|source| StartError {
        what: "failed to listen for signals".to_owned(),
        source: source.into(),
    })?;
    let desk = tokio::spawn(desk::serve(control, Arc::clone(&handles)));
    while let Some(signal) = signals.next().await {
        if signal == SIGHUP {
            herald::reloading().await;
            settings = reload(settings, &handles, path).await;
            herald::reloaded().await;
        } else {
            tracing::info!(signal, "stops");
            break;
        }
    }
    herald.abort();
    herald::stopping().await;
    let ending = Ending { gently: herald::is_managed(), again: herald::restarts().await };
    if ending.again {
        tracing::info!("is started again at once: the releases go on");
    }
    herald::patiently(stop(&handles, &settings, ending)).await;
    desk.abort();
    let _ = std::fs::remove_file(&settings.control_socket);
    Ok(())
}

/// Takes a new configuration, whole or not at all.
async fn reload(settings: Settings, handles: &Handles, path: &Path) -> Settings {
    let new = match config::load(path) {
        Ok(checked) => checked.settings,
        Err(problems) => {
            tracing::error!("the configuration was not taken, nothing changed:\n{problems}");
            return settings;
        }
    };
    let fixed = |it: &Settings| {
        let services: Vec<_> =
            it.services.values().map(|it| (it.name.clone(), it.listen, runtime(it))).collect();
        (it.state_dir.clone(), it.control_socket.clone(), it.metrics, services)
    };
    if fixed(&new) != fixed(&settings) {
        tracing::error!(
            "the configuration was not taken, nothing changed: folders, sockets, listen addresses, \
             runtimes and the set of services change only with a restart"
        );
        return settings;
    }
    if let Some((service, slot)) = moved_slot(&settings, &new) {
        tracing::error!(
            "the configuration was not taken, nothing changed: slot {slot} of {service} is gone or \
             has another address, and a release may run there; that changes only with a restart"
        );
        return settings;
    }
    for (name, service) in &new.services {
        if let Some(handle) = handles.get(name) {
            let _ = handle.inbox.send(Input::Configure(Arc::new(service.clone()))).await;
        }
    }
    tracing::info!("took the new configuration");
    new
}

/// Who runs the releases of a service, and where.
fn runtime(service: &Service) -> Option<String> {
    match &service.runtime {
        Runtime::External => None,
        Runtime::Command(_) => Some(String::new()),
        Runtime::Systemd(template) => Some(template.unit.clone()),
    }
}

/// A slot that is not where it was.
fn moved_slot<'a>(old: &'a Settings, new: &Settings) -> Option<(&'a str, &'a Slot)> {
    old.services.values().find_map(|service| {
        let now = new.services.get(&service.name);
        let address = |slot| now.and_then(|now| now.slots.get(slot));
        let (slot, _) = service.slots.iter().find(|(slot, was)| address(*slot) != Some(*was))?;
        Some((service.name.as_str(), slot))
    })
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

impl From<StateError> for StartError {
    fn from(error: StateError) -> Self {
        Self { what: "failed to use the state folder".to_owned(), source: error.into() }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
