//! The next daemon takes over from one that runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::daemon::handover::describe;
use crate::daemon::handover::fd_passing::ListenerFds;
use crate::daemon::handover::protocol::{
    HandoverMessage, Hello, ListenerKind, MessageReader, MessageWriter, split,
};
use crate::daemon::instance::{Instance, Proxies};
use crate::daemon::listeners::Listeners;
use crate::daemon::{StartError, notifier};
use crate::decide::Watch;
use crate::model::Moment;
use crate::proxy::{Proxy, ReplicationMessage};
use crate::record;
use crate::record::StateDir;
use crate::systemd::inherited_listeners::InheritedListeners;

/// How long the old daemon may take to let go.
const STATE_RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Changes that the old daemon may tell before it lets go. Those beyond are lost.
const BUFFERED_CHANGES_MAX: usize = 1_000_000;
/// Changes that are not taken up yet.
const CHANGES_CAPACITY: usize = 1024;
/// How often it is looked whether requests go elsewhere.
const ROUTES_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Bytes of what is said when it fails.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What a daemon that runs passes on.
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
    hello: Hello,
    inherited: InheritedListeners,
}

/// The daemon before this one, which ends what is open in it.
#[derive(Debug)]
pub(in crate::daemon) struct Predecessor(JoinHandle<()>);

impl Takeover {
    /// Hears what is passed on, over the standard input. Only before any thread is started.
    ///
    /// # Errors
    /// When nobody passes anything on there.
    pub fn from_stdin() -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Or the other end would not see that this one lets go of it.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (hello, listener_fds) = ListenerFds::receive(&stream)?;
        let inherited = InheritedListeners::try_from(listener_fds)?;
        Ok(Self { stream, hello, inherited })
    }

    /// Says why this one can not take over, before [`crate::daemon::run`].
    pub fn report_failure(&self, error: &str) {
        if let Ok(line) = failed_message(error).to_line() {
            // One that is gone needs no reason.
            let _ = (&self.stream).write_all(&line);
        }
    }

    /// Takes over; returns when this daemon is in charge.
    ///
    /// # Errors
    /// When it can not. The old one heard why, and goes on.
    pub(in crate::daemon) async fn take_over(
        self,
        settings: &Settings,
    ) -> Result<Instance, StartError> {
        let Self { stream, hello, inherited } = self;
        let connection_error = |error| StartError::new("failed to take over".into(), error);
        let (mut reader, mut writer) = split(stream).map_err(connection_error)?;
        let result = take_state(settings, &hello, inherited, &mut reader, &mut writer).await;
        let mut instance = match result {
            Ok(reign) => reign,
            Err(error) => {
                let _ = writer.send(&failed_message(&error.with_causes())).await;
                return Err(error);
            }
        };
        let proxies = Arc::clone(&instance.proxies);
        let main_pid_set =
            wait_until_main(&mut reader, &proxies).await.map_err(connection_error)?;
        if !main_pid_set && notifier::is_managed() {
            // The service manager saw the main process end, and starts another one.
            let what = "the daemon that hands over ended in the middle".to_owned();
            return Err(StartError::new(what, "the service manager starts another one"));
        }
        let (changes_sender, changes) = mpsc::channel(CHANGES_CAPACITY);
        let publisher = publish_routes(writer, Arc::clone(&proxies));
        tokio::spawn(async move {
            // The old one takes a channel that is closed for the end of this one.
            tokio::select! {
                () = forward_changes(reader, changes_sender) => (),
                never = publisher => never,
            }
        });
        instance.predecessor = Some(Predecessor::spawn(changes, proxies));
        Ok(instance)
    }
}

fn failed_message(error: &str) -> HandoverMessage {
    HandoverMessage::Failed(error.chars().take(ERROR_BYTES_MAX).collect())
}

async fn take_state(
    settings: &Settings,
    hello: &Hello,
    inherited: InheritedListeners,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<Instance, StartError> {
    let connection_error = |error| StartError::new("failed to take over".into(), error);
    let listeners = check_and_listen(settings, hello, inherited)?;
    let (pid, version) = (std::process::id(), env!("CARGO_PKG_VERSION").to_owned());
    writer.send(&HandoverMessage::Prepared { pid, version }).await.map_err(connection_error)?;
    let buffered = tokio::time::timeout(STATE_RELEASE_TIMEOUT, wait_until_released(reader)).await;
    let buffered = buffered
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(connection_error)?;
    let state = StateDir::open(&settings.state_dir)?;
    let predecessor = describe(hello.pid, &hello.version);
    let cause = format!("rollbackd {} took over from {predecessor}", env!("CARGO_PKG_VERSION"));
    let mut instance = Instance::new(settings, state, listeners, &cause)?;
    for (service, change) in buffered {
        instance.proxies.get(&service).into_iter().for_each(|proxy| proxy.apply(change.clone()));
    }
    instance.start();
    instance.wait_until_started().await;
    writer.send(&HandoverMessage::Ready).await.map_err(connection_error)?;
    if settings.control_socket != hello.control {
        // Nobody answers there any more.
        let _ = std::fs::remove_file(&hello.control);
    }
    Ok(instance)
}

/// Finds all that stands against it, while the old daemon is in charge.
fn check_and_listen(
    settings: &Settings,
    hello: &Hello,
    mut inherited: InheritedListeners,
) -> Result<Listeners, StartError> {
    if settings.state_dir != hello.state_dir {
        let (old, new) = (hello.state_dir.display(), settings.state_dir.display());
        let what = format!("the state folder changes only with a restart, from {old} to {new}");
        return Err(StartError::new(what, "a daemon runs on the old one"));
    }
    for service in settings.services.values() {
        let dir = settings.state_dir.join(&service.name);
        if dir.exists() {
            let entries = record::read_latest(&dir)?;
            let last = entries.last().map_or(Moment(0), |last| last.moment);
            // As far as it can be tried without an effect.
            let _ = Watch::restore(service.policy.clone(), &entries, last);
        }
    }
    if settings.control_socket != hello.control {
        drop(inherited.claim_control());
    }
    Listeners::open(settings, inherited)
}

/// What the old daemon tells until it lets go.
async fn wait_until_released(
    reader: &mut MessageReader,
) -> io::Result<Vec<(String, ReplicationMessage)>> {
    let mut buffered = Vec::new();
    loop {
        match reader.next().await? {
            Some(HandoverMessage::StateReleased) => return Ok(buffered),
            Some(HandoverMessage::ProxyChange(service, change))
                if buffered.len() < BUFFERED_CHANGES_MAX =>
            {
                buffered.push((service, change));
            }
            Some(_) => (),
            None => return Err(io::Error::other("the daemon that runs goes on")),
        }
    }
}

/// Waits until the service manager knows; `false` when the old daemon ended before.
async fn wait_until_main(reader: &mut MessageReader, proxies: &Proxies) -> io::Result<bool> {
    loop {
        match reader.next().await? {
            Some(HandoverMessage::MainPidSet) => return Ok(true),
            Some(HandoverMessage::ProxyChange(service, change)) => {
                if let Some(proxy) = proxies.get(&service) {
                    proxy.apply(change);
                }
            }
            Some(_) => (),
            None => return Ok(false),
        }
    }
}

/// Passes on what the old daemon tells, until its end.
async fn forward_changes(
    mut reader: MessageReader,
    changes: mpsc::Sender<(String, ReplicationMessage)>,
) {
    loop {
        match reader.next().await {
            Ok(Some(HandoverMessage::ProxyChange(service, change))) => {
                let _ = changes.send((service, change)).await;
            }
            Ok(Some(HandoverMessage::Done)) => {
                tracing::info!("the daemon before this one has left");
                break;
            }
            Ok(Some(_)) => (),
            Ok(None) | Err(_) => {
                tracing::warn!("the daemon before this one ended in the middle of what was open");
                break;
            }
        }
    }
}

/// Shows the old daemon where requests go, whenever that changes. Never returns.
async fn publish_routes(mut writer: MessageWriter, proxies: Proxies) {
    let mut published = BTreeMap::new();
    loop {
        for (service, proxy) in proxies.iter() {
            let Some(routes) = proxy.routes_snapshot() else { continue };
            if published.get(service) != Some(&routes) {
                // One that is gone needs no way.
                let _ = writer
                    .send(&HandoverMessage::RoutesChanged(service.clone(), routes.clone()))
                    .await;
                published.insert(service.clone(), routes);
            }
        }
        tokio::time::sleep(ROUTES_POLL_INTERVAL).await;
    }
}

impl Predecessor {
    /// Takes up what is told, as long as it is.
    pub(super) fn spawn(
        mut changes: mpsc::Receiver<(String, ReplicationMessage)>,
        proxies: Proxies,
    ) -> Self {
        Self(tokio::spawn(async move {
            while let Some((service, change)) = changes.recv().await {
                if let Some(proxy) = proxies.get(&service) {
                    proxy.apply(change);
                }
            }
            proxies.values().for_each(Proxy::predecessor_gone);
        }))
    }

    /// Waits until it is gone, so long at most.
    pub(in crate::daemon) async fn wait_until_gone(self, timeout: Duration) {
        if tokio::time::timeout(timeout, self.0).await.is_err() {
            tracing::warn!("the daemon before this one takes too long to leave");
        }
    }
}

impl TryFrom<ListenerFds> for InheritedListeners {
    type Error = io::Error;

    fn try_from(listener_fds: ListenerFds) -> io::Result<Self> {
        let mut inherited = Self::default();
        for (kind, listener) in listener_fds.0 {
            match kind {
                ListenerKind::Service(name) => {
                    inherited.add_service(&name, TcpListener::from(listener))?
                }
                ListenerKind::Control => inherited.add_control(listener)?,
                ListenerKind::Metrics => inherited.add_metrics(listener)?,
            }
        }
        Ok(inherited)
    }
}
