//! What shows from outside that a keeper's loop goes round, and what its service waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A keeper's end: beats once a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heartbeat(Arc<HeartbeatCells>);

#[derive(Debug, Default)]
struct HeartbeatCells {
    count: AtomicU64,
    status: Mutex<String>,
}

/// Looks at several pulses.
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatMonitor {
    loops: Vec<LoopState>,
}

#[derive(Debug, Clone)]
struct LoopState {
    heartbeat: Heartbeat,
    last_count: u64,
    last_change: Instant,
}

impl Heartbeat {
    /// One round is over.
    pub(crate) fn beat(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// What the service waits for.
    pub(crate) fn set_status(&self, text: String) {
        *self.0.status.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn status(&self) -> String {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HeartbeatMonitor {
    /// Watches from now on.
    pub(crate) fn new(heartbeats: Vec<Heartbeat>, now: Instant) -> Self {
        Self {
            loops: heartbeats
                .into_iter()
                .map(|heartbeat| LoopState { heartbeat, last_count: 0, last_change: now })
                .collect(),
        }
    }

    /// Takes a look.
    pub(crate) fn poll(&mut self, now: Instant) {
        for state in &mut self.loops {
            let count = state.heartbeat.0.count.load(Ordering::Relaxed);
            if count != state.last_count {
                (state.last_count, state.last_change) = (count, now);
            }
        }
    }

    /// Whether every loop was seen to go round.
    pub(crate) fn all_started(&self) -> bool {
        self.loops.iter().all(|seen| seen.last_count > 0)
    }

    /// Whether every loop went round within this time.
    pub(crate) fn all_alive(&self, within: Duration, now: Instant) -> bool {
        self.loops.iter().all(|seen| now.saturating_duration_since(seen.last_change) < within)
    }

    /// What all of them wait for, in one line.
    pub(crate) fn status(&self) -> String {
        let statuses: Vec<_> = self.loops.iter().map(|seen| seen.heartbeat.status()).collect();
        statuses.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stalled_loop_is_detected() {
        let (live, stalled) = (Heartbeat::default(), Heartbeat::default());
        let within = Duration::from_secs(10);
        let started_at = Instant::now();
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
        first.set_status("weather: watches v2".to_owned());
        second.set_status("maps: nothing on trial".to_owned());
        let monitor = HeartbeatMonitor::new(vec![first, second], Instant::now());
        assert_eq!(monitor.status(), "weather: watches v2; maps: nothing on trial");
    }
}
