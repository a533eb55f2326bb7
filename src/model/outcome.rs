use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// What became of one request.
///
/// The classes follow what servers were seen to do: HTTP status alone, JSON-RPC code alone and
/// `isError` alone each misjudge some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Answered, and well.
    Ok,
    /// The release failed: 5xx, refused, reset, -32603, no answer for the id, past its deadline.
    ServerFault,
    /// The tool said `isError` in an answer that is otherwise well formed.
    ToolFault,
    /// The client asked for something wrong: -32601, -32602, 400, 401 and the like.
    ClientFault,
    /// Nobody's fault: the client left, more input is needed, a limit on rate, our own answers.
    Neutral,
}

/// How many requests ended in each class, and how many took too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`Class::Ok`].
    pub ok: u64,
    /// [`Class::ServerFault`].
    pub server_fault: u64,
    /// [`Class::ToolFault`].
    pub tool_fault: u64,
    /// [`Class::ClientFault`].
    pub client_fault: u64,
    /// [`Class::Neutral`].
    pub neutral: u64,
    /// Of the requests above, those past the latency threshold. A request still in flight counts
    /// here when it passes the threshold, not when it ends.
    pub slow: u64,
    /// Of the requests above, those whose latency says something (answered or timed out).
    pub timed: u64,
    /// Of the judged requests, those that are safe to repeat.
    #[serde(default)]
    pub safe: u64,
    /// Of those, the ones that were server faults or tool faults.
    #[serde(default)]
    pub safe_bad: u64,
    /// Streams that only listen (GET, `subscriptions/listen`) and ended, whoever ended them.
    #[serde(default)]
    pub streams: u64,
    /// Of those, the ones that broke off on the release's side.
    #[serde(default)]
    pub broken: u64,
}

/// A method, and the tool or prompt it names (empty where it names none).
pub type Call = (Box<str>, Box<str>);

impl Counts {
    /// The requests that say something about the release: neither client faults nor neutral ones.
    pub fn judged(&self) -> u64 {
        self.ok.saturating_add(self.server_fault).saturating_add(self.tool_fault)
    }

    /// Every request.
    pub fn total(&self) -> u64 {
        self.judged().saturating_add(self.client_fault).saturating_add(self.neutral)
    }

    /// What was added since `seen`.
    pub fn since(&self, seen: &Self) -> Self {
        Self {
            ok: self.ok.saturating_sub(seen.ok),
            server_fault: self.server_fault.saturating_sub(seen.server_fault),
            tool_fault: self.tool_fault.saturating_sub(seen.tool_fault),
            client_fault: self.client_fault.saturating_sub(seen.client_fault),
            neutral: self.neutral.saturating_sub(seen.neutral),
            slow: self.slow.saturating_sub(seen.slow),
            timed: self.timed.saturating_sub(seen.timed),
            safe: self.safe.saturating_sub(seen.safe),
            safe_bad: self.safe_bad.saturating_sub(seen.safe_bad),
            streams: self.streams.saturating_sub(seen.streams),
            broken: self.broken.saturating_sub(seen.broken),
        }
    }

    /// Counts one request.
    pub fn count(&mut self, class: Class) {
        match class {
            Class::Ok => self.ok += 1,
            Class::ServerFault => self.server_fault += 1,
            Class::ToolFault => self.tool_fault += 1,
            Class::ClientFault => self.client_fault += 1,
            Class::Neutral => self.neutral += 1,
        }
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            ok: self.ok.saturating_add(other.ok),
            server_fault: self.server_fault.saturating_add(other.server_fault),
            tool_fault: self.tool_fault.saturating_add(other.tool_fault),
            client_fault: self.client_fault.saturating_add(other.client_fault),
            neutral: self.neutral.saturating_add(other.neutral),
            slow: self.slow.saturating_add(other.slow),
            timed: self.timed.saturating_add(other.timed),
            safe: self.safe.saturating_add(other.safe),
            safe_bad: self.safe_bad.saturating_add(other.safe_bad),
            streams: self.streams.saturating_add(other.streams),
            broken: self.broken.saturating_add(other.broken),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::ServerFault => "server fault",
            Self::ToolFault => "tool fault",
            Self::ClientFault => "client fault",
            Self::Neutral => "neutral",
        })
    }
}
