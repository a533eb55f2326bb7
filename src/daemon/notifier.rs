//! Reports to the service manager: readiness, what the services are waiting for, and the watchdog.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock::monotonic;
use crate::daemon::heartbeat::HeartbeatMonitor;
use crate::daemon::incidents::Incidents;
use crate::systemd::notify;

/// How often the notifier reads the heartbeats.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The same until all loops have started: the manager delays dependent units until then.
const POLL_INTERVAL_STARTING: Duration = Duration::from_millis(10);

/// Reports readiness once every loop has started, then each change of the status text. It resets the
/// watchdog while every loop is alive. Never returns.
pub(super) async fn run(mut monitor: HeartbeatMonitor, incidents: Incidents) {
    // Half of the period is a margin: a reset at the last moment may arrive too late.
    let watchdog_limit = sd_notify::watchdog_enabled().map(|period| period / 2);
    let (mut ready, mut last_status, mut last_ping) = (false, String::new(), monotonic());
    loop {
        tokio::time::sleep(if ready { POLL_INTERVAL } else { POLL_INTERVAL_STARTING }).await;
        let now = monotonic();
        monitor.poll(now);
        let (mut states, mut changed_status) = (Vec::new(), None);
        if !ready && monitor.all_started() {
            ready = true;
            states.push(NotifyState::Ready);
            tracing::info!("ready");
        }
        let mut status = monitor.status();
        let reviews = incidents.status_line();
        if !reviews.is_empty() {
            status = format!("{status}; {reviews}");
        }
        if ready && status != last_status {
            last_status.clone_from(&status);
            changed_status = Some(status);
        }
        let ping_due = watchdog_limit.is_some_and(|limit| {
            monitor.all_alive(limit, now) && limit / 3 <= now.duration_since(last_ping)
        });
        if ping_due {
            last_ping = now;
            states.push(NotifyState::Watchdog);
        }
        if !states.is_empty() || changed_status.is_some() {
            notify::send(states, changed_status).await;
        }
    }
}
