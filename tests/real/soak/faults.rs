//! What clients saw, and what explains it.

use rollbackd::clock::Clock;
use serde::Deserialize;
use serde_json::Value;

/// What a client that works tells at its end.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    /// How often each action succeeded.
    pub(super) done: std::collections::BTreeMap<String, u64>,
    /// The first of its failures, and how many there were.
    pub(super) failures: Vec<Failure>,
    pub(super) failed: u64,
    /// The notifications that the tools changed.
    pub(super) changes: u64,
}

/// A failure, from the beginning of the action to its end, in milliseconds since 1970.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) what: String,
    from: u64,
    until: u64,
    message: String,
    code: Value,
    data: Value,
}

/// A client has a turn at least so often.
const TOLD_LATE_MS: u64 = 2_000;

impl Failure {
    /// Some SDKs end with the connection that breaks, and tell so at the next call. One that is busy sends a
    /// request on a connection before it reads that this was reset.
    fn is_of_a_broken_connection(&self) -> bool {
        let message = &self.message;
        ["Connection closed", "ClosedResourceError", "ECONNRESET"]
            .iter()
            .any(|it| message.contains(it))
    }
}

/// Why clients may see failures for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// What is open at the daemon breaks with it. Clients that come later wait for the next one.
    Killed,
    /// The release fails, and its rollback may interrupt.
    Broken,
    /// A person interrupts what is open.
    Cut,
}

/// A cause, and when it was there.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) cause: Cause,
    from: u64,
    until: u64,
}

fn now_ms() -> u64 {
    Clock::wall_moment().0
}

impl Fault {
    /// It begins now.
    pub(super) fn begin(cause: Cause) -> Self {
        Self { cause, from: now_ms(), until: u64::MAX }
    }

    /// It ends now.
    pub(super) fn end(&mut self) {
        self.until = now_ms();
    }

    pub(super) fn explains(&self, failure: &Failure) -> bool {
        let open = failure.from <= self.until && self.from <= failure.until;
        let interrupted = failure.code == -32603 && failure.data["reason"] == "rollback";
        match self.cause {
            Cause::Killed if failure.is_of_a_broken_connection() => {
                (self.from..self.until.saturating_add(TOLD_LATE_MS)).contains(&failure.until)
            }
            Cause::Killed => open,
            Cause::Cut => open && interrupted,
            Cause::Broken if !open => false,
            Cause::Broken => {
                let message = &failure.message;
                let by_release = ["the tool failed", "Cannot read properties"].iter();
                interrupted || by_release.clone().any(|it| message.contains(it))
            }
        }
    }
}
