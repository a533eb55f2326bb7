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

use super::pulse::Watcher;

/// How often the pulses are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The same, until all are seen to go round: whoever starts the daemon waits for that.
const LOOK_FIRST: Duration = Duration::from_millis(10);
/// How long a stop may go on without another word from us.
const EXTENSION: Duration = Duration::from_secs(15);
const EXTEND_EVERY: Duration = Duration::from_secs(1);
/// How long the manager may take to say what it is about to do.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Whether a service manager listens.
pub(super) fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Says that the daemon is ready when every loop has begun; from then on what the services wait
/// for; and feeds the watchdog as long as every loop goes round. Never returns.
pub(super) async fn tell(mut watcher: Watcher) {
    // Half of it is for us: what is fed at the last moment may come too late.
    let within = sd_notify::watchdog_enabled().map(|period| period / 2);
    let (mut ready, mut told, mut fed) = (false, String::new(), Instant::now());
    loop {
        tokio::time::sleep(if ready { LOOK } else { LOOK_FIRST }).await;
        let now = Instant::now();
        watcher.look(now);
        let mut states = Vec::new();
        if !ready && watcher.all_began() {
            ready = true;
            states.push("READY=1".to_owned());
            tracing::info!("ready");
        }
        let says = watcher.says();
        if ready && says != told {
            states.push(format!("STATUS={says}"));
            told = says;
        }
        let due = within.is_some_and(|within| {
            watcher.all_alive(within, now) && within / 3 <= now.duration_since(fed)
        });
        if due {
            fed = now;
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
pub(super) async fn reloaded() {
    send(vec!["READY=1".to_owned()]).await;
}

/// The daemon stops.
pub(super) async fn stopping() {
    let status = "STATUS=stops: waits for open requests".to_owned();
    send(vec!["STOPPING=1".to_owned(), status]).await;
}

/// Asks for patience as long as `work` goes on.
pub(super) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        let extend = format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros());
        send(vec![extend, "WATCHDOG=1".to_owned()]).await;
        if let Ok(done) = tokio::time::timeout(EXTEND_EVERY, work.as_mut()).await {
            return done;
        }
    }
}

/// The watchdog is fed.
pub(super) async fn alive() {
    send(vec!["WATCHDOG=1".to_owned()]).await;
}

/// From now on another process is the main one, and alone is listened to.
///
/// # Errors
/// When that can not be said.
pub(super) async fn main_is(pid: u32) -> io::Result<()> {
    let said = tokio::task::spawn_blocking(move || sd_notify::notify(&[NotifyState::MainPid(pid)]));
    said.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Leaves a listener with the manager, so that it outlives this process: clients wait in its
/// backlog for the next one.
pub(super) fn keep(name: &str, listener: BorrowedFd<'_>) {
    if !is_managed() {
        return;
    }
    let fds = [listener];
    let kept = sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &fds);
    if let Err(error) = kept {
        tracing::warn!(service = name, %error, "a restart will close the listener for a moment");
    }
}

/// Lets the manager close what was kept under a name.
pub(super) fn forget(name: &str) {
    // One that was never kept, or no manager: nothing to do.
    let _ = sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

/// Whether the manager stops this daemon only to start it again. `false` where it can not be told.
pub(super) async fn restarts() -> bool {
    if !is_managed() {
        return false;
    }
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut units = cgroup.split(['/', '\n']).filter(|part| part.ends_with(".service"));
    let Some(unit) = units.next_back() else { return false };
    let mut command = Command::new("systemctl");
    command.args(["list-jobs", "--no-legend", "--plain", unit]);
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let asked = tokio::time::timeout(ANSWER_MAX, command.output()).await;
    let Ok(Ok(output)) = asked else { return false };
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
