//! The successor while it prepares: the old daemon starts it, passes the listeners, and waits.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::daemon::handover::fd_passing::ListenerFds;
use crate::daemon::handover::protocol::{
    HandoverMessage, Hello, MessageReader, MessageWriter, PROTOCOL, describe, split,
};
use crate::daemon::handover::spawn;
use crate::daemon::instance::Instance;
use crate::daemon::services::ServiceHandles;
use crate::service::handle::ServiceHandle;

/// How long the successor may take to prepare.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a prepared successor waits for releases that stop: less than it waits for the state.
const STOPS_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a killed successor may take to end.
const KILL_TIMEOUT_S: i64 = 5;

/// A daemon that can take over.
#[derive(Debug)]
pub(in crate::daemon) struct Successor {
    pub(super) reader: MessageReader,
    pub(super) writer: MessageWriter,
    pub(super) pid: u32,
    pub(super) version: String,
    /// The listeners that it received.
    pub(super) listener_fds: ListenerFds,
    pidfd: OwnedFd,
}

/// A daemon that prepares. Dropping this abandons it.
#[derive(Debug)]
pub(in crate::daemon) struct SuccessorStarting(JoinHandle<Result<Successor, String>>);

impl SuccessorStarting {
    /// Starts it.
    pub(in crate::daemon) fn spawn(
        instance: &Instance,
        settings: &Settings,
        config: &Path,
    ) -> Self {
        let listener_fds = duplicate_listeners(instance);
        let handles = Arc::clone(instance.handles());
        let (state_dir, control) = (settings.state_dir.clone(), settings.control_socket.clone());
        let config = config.to_owned();
        Self(tokio::spawn(async move {
            let listener_fds =
                listener_fds.map_err(|error| format!("cannot duplicate the listeners: {error}"))?;
            let hello = Hello {
                protocol: PROTOCOL,
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                state_dir,
                control,
                listeners: listener_fds.0.iter().map(|(kind, _)| kind.clone()).collect(),
            };
            // The next daemon stops at once what no release needs; here, open requests may finish.
            no_release_stops(&handles).await;
            let successor = prepare(listener_fds, hello, config).await?;
            // A stop that began meanwhile. The next daemon waits for the state.
            let _ = tokio::time::timeout(STOPS_TIMEOUT, no_release_stops(&handles)).await;
            Ok(successor)
        }))
    }

    /// Waits until it is prepared, or has failed. Cancel safe.
    pub(in crate::daemon) async fn wait(&mut self) -> Result<Successor, String> {
        (&mut self.0).await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Drop for SuccessorStarting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn no_release_stops(handles: &ServiceHandles) {
    join_all(handles.values().map(ServiceHandle::no_stops)).await;
}

/// Duplicates all listeners of an instance.
fn duplicate_listeners(instance: &Instance) -> io::Result<ListenerFds> {
    let mut listeners = ListenerFds::default();
    for (name, proxy) in instance.proxies().iter() {
        if let Some(listener) = proxy.duplicate_listener()? {
            listeners.add_service(name, listener);
        }
    }
    listeners.add_control(instance.control_listener().as_fd().try_clone_to_owned()?);
    if let Some(listener) = instance.metrics_listener() {
        listeners.add_metrics(listener.as_fd().try_clone_to_owned()?);
    }
    if let Some(listener) = instance.page_listener() {
        listeners.add_page(listener.as_fd().try_clone_to_owned()?);
    }
    Ok(listeners)
}

async fn prepare(
    listener_fds: ListenerFds,
    hello: Hello,
    config: PathBuf,
) -> Result<Successor, String> {
    let stream = spawn::spawn_detached(&config).await?;
    let sent = tokio::task::spawn_blocking(move || {
        listener_fds
            .send(&stream, &hello)
            .map(|()| (stream, listener_fds))
            .map_err(|error| error.to_string())
    });
    let sent = sent.await.unwrap_or_else(|error| Err(error.to_string()));
    let (stream, listener_fds) =
        sent.map_err(|error| format!("the successor does not read: {error}"))?;
    let (mut reader, writer) = split(stream).map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(PREPARE_TIMEOUT, reader.next()).await;
    match answer {
        Ok(Ok(Some(HandoverMessage::Prepared { pid, version }))) => {
            tracing::info!("{} is ready to take over", describe(pid, &version));
            let pidfd =
                open_pidfd(pid).map_err(|error| format!("cannot find the successor: {error}"))?;
            Ok(Successor { reader, writer, pid, version, listener_fds, pidfd })
        }
        Ok(Ok(Some(HandoverMessage::Failed(error)))) => Err(error),
        Ok(Ok(Some(_))) => Err("unexpected message from the successor".to_owned()),
        Ok(Ok(None)) => Err("the successor exited; see its log above".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            Err(format!("the successor did not answer within {} s", PREPARE_TIMEOUT.as_secs()))
        }
    }
}

fn open_pidfd(pid: u32) -> Result<OwnedFd, String> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("invalid process id")?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| error.to_string())
}

impl Successor {
    /// Kills it, and waits until it has ended. The listeners that it received.
    ///
    /// # Errors
    /// When it does not end: it may still use the state.
    pub(super) async fn kill(self) -> Result<ListenerFds, String> {
        let name = describe(self.pid, &self.version);
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let Self { pidfd, listener_fds, .. } = self;
        match tokio::task::spawn_blocking(move || wait_exit(&pidfd)).await {
            Ok(Ok(true)) => Ok(listener_fds),
            Ok(Ok(false)) => Err(format!("{name} did not end within {KILL_TIMEOUT_S} s")),
            Ok(Err(error)) => Err(format!("cannot wait for {name}: {error}")),
            Err(error) => Err(format!("cannot wait for {name}: {error}")),
        }
    }
}

/// Waits until a process has ended: then its pidfd becomes readable. `false` after the time limit. Blocks.
fn wait_exit(pidfd: &OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 }))? > 0)
}
