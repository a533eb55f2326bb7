//! What the service manager (systemd) is told, and asked.
//!
//! Nothing here waits on a thread of the runtime: a manager that does not read must not keep the
//! proxy waiting.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::Stdio;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::process::Command;
use tokio::time::Instant;

use crate::service::heartbeat::HeartbeatMonitor;

/// How often the pulses are looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The same, until all are seen to go round: whoever starts the daemon waits for that.
const POLL_INTERVAL_STARTING: Duration = Duration::from_millis(10);
/// How long a stop may go on without another word from us.
const STOP_TIMEOUT_EXTENSION: Duration = Duration::from_secs(15);
const EXTEND_INTERVAL: Duration = Duration::from_secs(1);
/// How long the manager may take to say what it is about to do.
const LIST_JOBS_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether a service manager listens.
pub(super) fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Says that the daemon is ready when every loop has begun; from then on what the services wait
/// for; and feeds the watchdog as long as every loop goes round. Never returns.
pub(super) async fn run(mut monitor: HeartbeatMonitor) {
    // Half of it is for us: what is fed at the last moment may come too late.
    let watchdog_limit = sd_notify::watchdog_enabled().map(|period| period / 2);
    let (mut ready, mut last_status, mut last_ping) = (false, String::new(), Instant::now());
    loop {
        tokio::time::sleep(if ready { POLL_INTERVAL } else { POLL_INTERVAL_STARTING }).await;
        let now = Instant::now();
        monitor.poll(now);
        let mut states = Vec::new();
        if !ready && monitor.all_started() {
            ready = true;
            states.push("READY=1".to_owned());
            tracing::info!("ready");
        }
        let status = monitor.status();
        if ready && status != last_status {
            states.push(format!("STATUS={status}"));
            last_status = status;
        }
        let ping_due = watchdog_limit.is_some_and(|limit| {
            monitor.all_alive(limit, now) && limit / 3 <= now.duration_since(last_ping)
        });
        if ping_due {
            last_ping = now;
            states.push("WATCHDOG=1".to_owned());
        }
        if !states.is_empty() {
            send(states).await;
        }
    }
}

/// A new configuration is read.
pub(super) async fn reloading() {
    let now = NotifyState::monotonic_usec_now().map(|it| it.to_string()).unwrap_or_default();
    send(vec!["RELOADING=1".to_owned(), now]).await;
}

/// It was read.
pub(super) async fn reload_done() {
    send(vec!["READY=1".to_owned()]).await;
}

/// The daemon stops.
pub(super) async fn stopping() {
    let status = "STATUS=stops: waits for open requests".to_owned();
    send(vec!["STOPPING=1".to_owned(), status]).await;
}

/// Asks for patience as long as `work` goes on.
pub(super) async fn extend_timeout_while<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        let extend = format!("EXTEND_TIMEOUT_USEC={}", STOP_TIMEOUT_EXTENSION.as_micros());
        send(vec![extend, "WATCHDOG=1".to_owned()]).await;
        if let Ok(output) = tokio::time::timeout(EXTEND_INTERVAL, work.as_mut()).await {
            return output;
        }
    }
}

/// The watchdog is fed.
pub(super) async fn ping_watchdog() {
    send(vec!["WATCHDOG=1".to_owned()]).await;
}

/// From now on another process is the main one, and alone is listened to.
///
/// # Errors
/// When that can not be said.
pub(super) async fn set_main_pid(pid: u32) -> io::Result<()> {
    let sent = tokio::task::spawn_blocking(move || sd_notify::notify(&[NotifyState::MainPid(pid)]));
    sent.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Leaves a listener with the manager, so that it outlives this process: clients wait in its
/// backlog for the next one.
pub(super) fn store_fd(name: &str, listener: BorrowedFd<'_>) {
    if !is_managed() {
        return;
    }
    let fds = [listener];
    let stored =
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &fds);
    if let Err(error) = stored {
        tracing::warn!(service = name, %error, "a restart will close the listener for a moment");
    }
}

/// Lets the manager close what was kept under a name.
pub(super) fn remove_fd(name: &str) {
    // One that was never kept, or no manager: nothing to do.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Whether the manager stops this daemon only to start it again. `false` where it can not be told.
pub(super) async fn is_restarting() -> bool {
    if !is_managed() {
        return false;
    }
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut units = cgroup.split(['/', '\n']).filter(|part| part.ends_with(".service"));
    let Some(unit) = units.next_back() else { return false };
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--no-legend", "--plain", unit]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let result = tokio::time::timeout(LIST_JOBS_TIMEOUT, command.output()).await;
    let Ok(Ok(output)) = result else { return false };
    // 123 rollbackd.service restart running
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().any(|line| line.split_whitespace().any(|word| word == "restart"))
}

async fn send(states: Vec<String>) {
    if !is_managed() {
        return;
    }
    let sent = tokio::task::spawn_blocking(move || {
        let states: Vec<_> = states.iter().map(|it| NotifyState::Custom(it)).collect();
        sd_notify::notify(&states)
    });
    if let Ok(Err(error)) = sent.await {
        tracing::warn!(%error, "failed to tell the service manager");
    }
}
