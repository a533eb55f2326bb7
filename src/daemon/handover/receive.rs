//! The receiving side of a handover: the new daemon takes over from the running one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Settings;
use crate::daemon::error::StartError;
use crate::daemon::handover::fd_passing::ListenerFds;
use crate::daemon::handover::protocol::{
    HandoverMessage, Hello, MessageReader, MessageWriter, describe, split,
};
use crate::daemon::instance::Instance;
use crate::daemon::listeners::Listeners;
use crate::daemon::predecessor::{Predecessor, ServiceChange};
use crate::daemon::services::Proxies;
use crate::decide::Watch;
use crate::model::Moment;
use crate::record;
use crate::record::StateDir;
use crate::systemd::inherited_listeners::InheritedListeners;
use crate::systemd::notify;

/// How long the old daemon may take to release the state.
const STATE_RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// Changes that this daemon keeps until the state is released. Further ones are lost.
const BUFFERED_CHANGES_MAX: usize = 1_000_000;
/// Changes that are not applied yet.
const CHANGES_CAPACITY: usize = 1024;
/// How often the new daemon compares its routes with the published ones.
const ROUTES_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Characters of the reason of a failure.
const ERROR_CHARS_MAX: usize = 8 * 1024;

/// What the running daemon passes.
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
    hello: Hello,
    inherited: InheritedListeners,
}

impl Takeover {
    /// Receives [`Hello`] and the listeners over the standard input. Call it before any thread starts.
    ///
    /// # Errors
    /// When no daemon is on the other end.
    pub fn from_stdin() -> io::Result<Self> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Otherwise the other end would not see that this process closes the stream.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (hello, listener_fds) = ListenerFds::receive(&stream)?;
        let inherited = InheritedListeners::try_from(listener_fds)?;
        Ok(Self { stream, hello, inherited })
    }

    /// Reports a failure that happens before [`crate::daemon::run`].
    pub fn report_failure(&self, error: &str) {
        if let Ok(line) = failed_message(error).to_line() {
            // If the old daemon is gone, there is nothing to report to.
            let _ = (&self.stream).write_all(&line);
        }
    }

    /// Takes over; returns when this daemon is active.
    ///
    /// # Errors
    /// When it cannot. The old daemon receives the reason and continues.
    pub(in crate::daemon) async fn take_over(
        self,
        settings: &Settings,
    ) -> Result<Instance, StartError> {
        let Self { stream, hello, inherited } = self;
        let connection_error = |error| StartError::new("cannot take over".into(), error);
        let (mut reader, mut writer) = split(stream).map_err(connection_error)?;
        let result = take_state(settings, &hello, inherited, &mut reader, &mut writer).await;
        let mut instance = match result {
            Ok(instance) => instance,
            Err(error) => {
                let _ = writer.send(&failed_message(&error.with_causes())).await;
                return Err(error);
            }
        };
        let proxies = Arc::clone(instance.proxies());
        let main_pid_set =
            wait_until_main(&mut reader, &proxies).await.map_err(connection_error)?;
        if !main_pid_set && notify::is_managed() {
            // The service manager saw its main process end, and starts another one.
            let what = "the old daemon ended during the handover".to_owned();
            return Err(StartError::new(what, "the service manager restarts rollbackd"));
        }
        let (changes_sender, changes) = mpsc::channel(CHANGES_CAPACITY);
        let publisher = publish_routes(writer, Arc::clone(&proxies));
        tokio::spawn(async move {
            // The writer stays open: the old daemon takes a closed one for the end of this daemon.
            tokio::select! {
                () = forward_changes(reader, changes_sender) => (),
                never = publisher => never,
            }
        });
        instance.set_predecessor(Predecessor::spawn(changes, proxies));
        Ok(instance)
    }
}

fn failed_message(error: &str) -> HandoverMessage {
    HandoverMessage::Failed(error.chars().take(ERROR_CHARS_MAX).collect())
}

async fn take_state(
    settings: &Settings,
    hello: &Hello,
    inherited: InheritedListeners,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<Instance, StartError> {
    let connection_error = |error| StartError::new("cannot take over".into(), error);
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
        if let Some(proxy) = instance.proxies().get(&service) {
            proxy.apply(change);
        }
    }
    instance.start();
    instance.wait_until_started().await;
    writer.send(&HandoverMessage::Ready).await.map_err(connection_error)?;
    if settings.control_socket != hello.control {
        // No daemon accepts on the old socket any more.
        let _ = std::fs::remove_file(&hello.control);
    }
    Ok(instance)
}

/// Finds every reason against a takeover while the old daemon is active.
fn check_and_listen(
    settings: &Settings,
    hello: &Hello,
    mut inherited: InheritedListeners,
) -> Result<Listeners, StartError> {
    if settings.state_dir != hello.state_dir {
        let (old, new) = (hello.state_dir.display(), settings.state_dir.display());
        let what = format!("a new state directory needs a restart: it changes from {old} to {new}");
        return Err(StartError::new(what, "a daemon uses the old one"));
    }
    for service in settings.services.values() {
        let dir = settings.state_dir.join(&service.name);
        if dir.exists() {
            let entries = record::read_latest(&dir)?;
            let last = entries.last().map_or(Moment(0), |last| last.moment);
            // A dry run: it has no effect.
            let _ = Watch::restore(service.policy.clone(), &entries, last);
        }
    }
    if settings.control_socket != hello.control {
        drop(inherited.claim_control());
    }
    Listeners::open(settings, inherited)
}

/// The changes that the old daemon sends until it releases the state.
async fn wait_until_released(reader: &mut MessageReader) -> io::Result<Vec<ServiceChange>> {
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
            None => return Err(io::Error::other("the old daemon continues")),
        }
    }
}

/// Waits until the service manager knows the main pid; `false` when the old daemon ended before.
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

/// Forwards the changes of the old daemon until it ends.
async fn forward_changes(mut reader: MessageReader, changes: mpsc::Sender<ServiceChange>) {
    loop {
        match reader.next().await {
            Ok(Some(HandoverMessage::ProxyChange(service, change))) => {
                let _ = changes.send((service, change)).await;
            }
            Ok(Some(HandoverMessage::Done)) => {
                tracing::info!("the previous daemon has drained and ended");
                break;
            }
            Ok(Some(_)) => (),
            Ok(None) | Err(_) => {
                tracing::warn!("the previous daemon ended before its open requests were done");
                break;
            }
        }
    }
}

/// Sends the routes to the old daemon whenever they change. Never returns.
async fn publish_routes(mut writer: MessageWriter, proxies: Proxies) {
    let mut published = BTreeMap::new();
    loop {
        for (service, proxy) in proxies.iter() {
            let Some(routes) = proxy.routes_snapshot() else { continue };
            if published.get(service) != Some(&routes) {
                // An old daemon that is gone needs no routes.
                let _ = writer
                    .send(&HandoverMessage::RoutesChanged(service.clone(), routes.clone()))
                    .await;
                published.insert(service.clone(), routes);
            }
        }
        tokio::time::sleep(ROUTES_POLL_INTERVAL).await;
    }
}
