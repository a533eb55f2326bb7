//! Notifications to the service manager over `NOTIFY_SOCKET` (sd_notify).
//!
//! Each one is sent on a blocking thread: a manager that does not read must not block the proxy.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::systemd::manager::SystemdManager;

/// How much longer a stop may take after each request for more time.
const STOP_TIMEOUT_EXTENSION: NotifyState<'static> = NotifyState::ExtendTimeoutUsec(15_000_000);
const EXTEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long the manager may take to list its jobs.
const LIST_JOBS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a service manager started this process and takes notifications.
pub(crate) fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Sends states, and a status text if there is one.
pub(crate) async fn send(states: Vec<NotifyState<'static>>, status: Option<String>) {
    if !is_managed() {
        return;
    }
    let sent = tokio::task::spawn_blocking(move || {
        let mut all: Vec<NotifyState<'_>> = states;
        all.extend(status.as_deref().map(NotifyState::Status));
        sd_notify::notify(&all)
    });
    if let Ok(Err(error)) = sent.await {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// The daemon starts to reload its configuration.
pub(crate) async fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    send(states, None).await;
}

/// The reload is done.
pub(crate) async fn reload_done() {
    send(vec![NotifyState::Ready], None).await;
}

/// The daemon stops.
pub(crate) async fn stopping() {
    let status = "stopping: waiting for open requests".to_owned();
    send(vec![NotifyState::Stopping], Some(status)).await;
}

/// Asks for more time until `work` is done.
pub(crate) async fn extend_timeout_while<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        send(vec![STOP_TIMEOUT_EXTENSION, NotifyState::Watchdog], None).await;
        if let Ok(output) = tokio::time::timeout(EXTEND_INTERVAL, work.as_mut()).await {
            return output;
        }
    }
}

/// Resets the watchdog timer.
pub(crate) async fn ping_watchdog() {
    send(vec![NotifyState::Watchdog], None).await;
}

/// Makes another process the main one. From now on the manager takes notifications from that one only.
///
/// # Errors
/// When the notification cannot be sent.
pub(crate) async fn set_main_pid(pid: u32) -> io::Result<()> {
    let sent = tokio::task::spawn_blocking(move || sd_notify::notify(&[NotifyState::MainPid(pid)]));
    sent.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Replaces the listener that the manager stores under this name. It outlives this process: clients
/// wait in its backlog for the next daemon. `None` only removes the stored one.
pub(crate) async fn store_fd(name: String, listener: Option<OwnedFd>) {
    if !is_managed() {
        return;
    }
    let stored = tokio::task::spawn_blocking(move || {
        // One that is not stored needs no removal: an error means nothing.
        let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
        let Some(listener) = listener else { return };
        let states = [NotifyState::FdStore, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify_with_fds(&states, &[listener.as_fd()]) {
            tracing::warn!(
                service = name,
                %error,
                "cannot store the listener: a restart will refuse connections for a moment"
            );
        }
    });
    let _ = stored.await;
}

/// Whether the manager stops this daemon in order to start it again. `false` where that is unknown:
/// the releases then stop with the daemon, as on every other stop.
pub(crate) async fn is_restarting(manager: &SystemdManager) -> bool {
    if !is_managed() {
        return false;
    }
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut units = cgroup.split(['/', '\n']).filter(|part| part.ends_with(".service"));
    let Some(unit) = units.next_back() else { return false };
    match tokio::time::timeout(LIST_JOBS_TIMEOUT, manager.is_restarting(unit)).await {
        Ok(Ok(restarting)) => return restarting,
        Ok(Err(error)) => tracing::warn!(%error, "cannot tell a restart from a stop"),
        Err(_) => tracing::warn!("cannot tell a restart from a stop: systemd does not answer"),
    }
    false
}
