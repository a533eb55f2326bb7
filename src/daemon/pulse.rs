//! What shows from outside that a keeper's loop goes round, and what its service waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A keeper's end: beats once a round.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    beats: AtomicU64,
    says: Mutex<String>,
}

/// Looks at several pulses.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    all: Vec<Seen>,
}

#[derive(Debug, Clone)]
struct Seen {
    pulse: Pulse,
    beats: u64,
    at: Instant,
}

impl Pulse {
    /// One round is over.
    pub(super) fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// What the service waits for.
    pub(super) fn say(&self, text: String) {
        *self.0.says.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    fn said(&self) -> String {
        self.0.says.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watcher {
    /// Watches from now on.
    pub(super) fn new(pulses: Vec<Pulse>, now: Instant) -> Self {
        Self { all: pulses.into_iter().map(|pulse| Seen { pulse, beats: 0, at: now }).collect() }
    }

    /// Takes a look.
    pub(super) fn look(&mut self, now: Instant) {
        for seen in &mut self.all {
            let beats = seen.pulse.0.beats.load(Ordering::Relaxed);
            if beats != seen.beats {
                (seen.beats, seen.at) = (beats, now);
            }
        }
    }

    /// Whether every loop was seen to go round.
    pub(super) fn all_began(&self) -> bool {
        self.all.iter().all(|seen| seen.beats > 0)
    }

    /// Whether every loop went round within this time.
    pub(super) fn all_alive(&self, within: Duration, now: Instant) -> bool {
        self.all.iter().all(|seen| now.saturating_duration_since(seen.at) < within)
    }

    /// What all of them wait for, in one line.
    pub(super) fn says(&self) -> String {
        let all: Vec<_> = self.all.iter().map(|seen| seen.pulse.said()).collect();
        all.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loop_that_stands_still_is_enough() {
        let (one, other) = (Pulse::default(), Pulse::default());
        let within = Duration::from_secs(10);
        let begun = Instant::now();
        let mut watcher = Watcher::new(vec![one.clone(), other.clone()], begun);
        assert!(!watcher.all_began());
        one.beat();
        other.beat();
        watcher.look(begun);
        assert!(watcher.all_began());
        for second in 1..=30 {
            let now = begun + Duration::from_secs(second);
            one.beat();
            watcher.look(now);
            assert_eq!(watcher.all_alive(within, now), second < 10, "{second} s");
        }
        other.beat();
        let now = begun + Duration::from_secs(31);
        one.beat();
        watcher.look(now);
        assert!(watcher.all_alive(within, now));
    }

    #[test]
    fn what_they_say_is_one_line() {
        let (one, other) = (Pulse::default(), Pulse::default());
        one.say("weather: watches v2".to_owned());
        other.say("maps: nothing on trial".to_owned());
        let watcher = Watcher::new(vec![one, other], Instant::now());
        assert_eq!(watcher.says(), "weather: watches v2; maps: nothing on trial");
    }
}
