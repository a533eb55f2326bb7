//! Monitors the heartbeats of all service loops.

use std::time::Duration;

use tokio::time::Instant;

use crate::service::heartbeat::Heartbeat;

/// Whether several loops have started, and whether each is alive.
#[derive(Debug, Clone)]
pub(super) struct HeartbeatMonitor {
    loops: Vec<LoopState>,
}

#[derive(Debug, Clone)]
struct LoopState {
    heartbeat: Heartbeat,
    last_count: u64,
    last_change: Instant,
}

impl HeartbeatMonitor {
    /// Monitors these loops, from now on.
    pub(super) fn new(heartbeats: Vec<Heartbeat>, now: Instant) -> Self {
        Self {
            loops: heartbeats
                .into_iter()
                .map(|heartbeat| LoopState { heartbeat, last_count: 0, last_change: now })
                .collect(),
        }
    }

    /// Reads all heartbeats.
    pub(super) fn poll(&mut self, now: Instant) {
        for state in &mut self.loops {
            let count = state.heartbeat.count();
            if count != state.last_count {
                (state.last_count, state.last_change) = (count, now);
            }
        }
    }

    /// Whether every loop has completed an iteration.
    pub(super) fn all_started(&self) -> bool {
        self.loops.iter().all(|state| state.last_count > 0)
    }

    /// Whether every loop completed an iteration within this time.
    pub(super) fn all_alive(&self, within: Duration, now: Instant) -> bool {
        self.loops.iter().all(|state| now.saturating_duration_since(state.last_change) < within)
    }

    /// What the services are waiting for, in one line.
    pub(super) fn status(&self) -> String {
        let statuses: Vec<_> = self.loops.iter().map(|state| state.heartbeat.status()).collect();
        statuses.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::monotonic;

    #[test]
    fn one_stalled_loop_is_detected() {
        let (live, stalled) = (Heartbeat::default(), Heartbeat::default());
        let within = Duration::from_secs(10);
        let started_at = monotonic();
        let mut monitor = HeartbeatMonitor::new(vec![live.clone(), stalled.clone()], started_at);
        assert!(!monitor.all_started());
        live.beat();
        stalled.beat();
        monitor.poll(started_at);
        assert!(monitor.all_started());
        for second in 1..=30 {
            let now = started_at + Duration::from_secs(second);
            live.beat();
            monitor.poll(now);
            assert_eq!(monitor.all_alive(within, now), second < 10, "{second} s");
        }
        stalled.beat();
        let now = started_at + Duration::from_secs(31);
        live.beat();
        monitor.poll(now);
        assert!(monitor.all_alive(within, now));
    }

    #[test]
    fn status_is_one_line() {
        let (first, second) = (Heartbeat::default(), Heartbeat::default());
        first.set_status("weather: watching v2".to_owned());
        second.set_status("maps: nothing on trial".to_owned());
        let monitor = HeartbeatMonitor::new(vec![first, second], monotonic());
        assert_eq!(monitor.status(), "weather: watching v2; maps: nothing on trial");
    }
}
