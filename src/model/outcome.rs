use std::fmt;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// The result of one request.
///
/// The classes follow what servers were seen to do: HTTP status alone, JSON-RPC code alone and
/// `isError` alone each misjudge some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered, and well.
    Ok,
    /// The release failed: 5xx, refused, reset, -32603, no answer for the id, past its deadline.
    ServerFault,
    /// A well-formed answer with `isError`.
    ToolFault,
    /// The client asked for something wrong: -32601, -32602, 400, 401 and the like.
    ClientFault,
    /// No fault: the client left, more input is needed, a rate limit, the proxy's own answers.
    Neutral,
}

/// How many requests ended in each class, and how many took too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// [`Outcome::Ok`].
    pub ok: u64,
    /// [`Outcome::ServerFault`].
    pub server_fault: u64,
    /// [`Outcome::ToolFault`].
    pub tool_fault: u64,
    /// [`Outcome::ClientFault`].
    pub client_fault: u64,
    /// [`Outcome::Neutral`].
    pub neutral: u64,
    /// Of the requests above, those past the latency threshold. A request still in flight counts
    /// here when it passes the threshold, not when it ends.
    pub slow: u64,
    /// Of the requests above, those whose latency counts (answered or timed out).
    #[serde(alias = "timed")]
    pub with_latency: u64,
    /// Of the judged requests, those that are safe to repeat.
    #[serde(default)]
    #[serde(rename = "safe")]
    pub repeatable: u64,
    /// Of those, the ones that were server faults or tool faults.
    #[serde(default)]
    #[serde(rename = "safe_bad")]
    pub repeatable_failed: u64,
    /// Streams that only listen (GET, `subscriptions/listen`) and ended, by either side.
    #[serde(default)]
    #[serde(alias = "streams")]
    pub streams_ended: u64,
    /// Of those, the ones that broke off on the release's side.
    #[serde(default)]
    #[serde(alias = "broken")]
    pub streams_broken: u64,
    /// Of [`Self::ok`], answers with far less content than the release before gave to the call
    /// ([`crate::model::UsualAnswers`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub small: u64,
    /// Requests that took far longer than answers did there, counted once they have been open for so long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slower: u64,
    /// Of [`Self::slower`], requests without an answer then: still open, or given up by their client.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub given_up: u64,
    /// Of [`Self::ok`] and [`Self::tool_fault`], answers to requests of [`Self::given_up`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub answered_late: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What passed a release and is no evidence about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unjudged {
    /// Requests that are no MCP: other paths and methods.
    pub not_mcp: u64,
    /// Of those, the ones answered with 4xx.
    pub not_mcp_4xx: u64,
    /// Of those, the ones answered with 5xx, or not at all.
    pub not_mcp_5xx: u64,
    /// MCP requests whose response could not be read: it was compressed.
    pub unread: u64,
    /// Requests that failed because rollbackd had no open file, port or memory for them.
    pub own_shortage: u64,
    /// MCP requests that the release refused with status 429.
    pub rate_limited: u64,
}

impl Unjudged {
    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A path besides the endpoint at which clients send JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpPath {
    /// The path, shortened.
    pub path: String,
    /// Requests since the daemon started.
    pub requests: u64,
    /// Whether a release serves MCP there, so that the requests are judged.
    pub judged: bool,
}

/// A method, and the tool or prompt it names (empty where it names none).
pub type CallKey = (Box<str>, Box<str>);

impl Counts {
    /// The requests that are evidence about the release: no client faults, no neutral ones.
    pub fn judged(&self) -> u64 {
        self.ok.saturating_add(self.server_fault).saturating_add(self.tool_fault)
    }

    /// Every request.
    pub fn total(&self) -> u64 {
        self.judged().saturating_add(self.client_fault).saturating_add(self.neutral)
    }

    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ok: self.ok.saturating_sub(earlier.ok),
            server_fault: self.server_fault.saturating_sub(earlier.server_fault),
            tool_fault: self.tool_fault.saturating_sub(earlier.tool_fault),
            client_fault: self.client_fault.saturating_sub(earlier.client_fault),
            neutral: self.neutral.saturating_sub(earlier.neutral),
            slow: self.slow.saturating_sub(earlier.slow),
            with_latency: self.with_latency.saturating_sub(earlier.with_latency),
            repeatable: self.repeatable.saturating_sub(earlier.repeatable),
            repeatable_failed: self.repeatable_failed.saturating_sub(earlier.repeatable_failed),
            streams_ended: self.streams_ended.saturating_sub(earlier.streams_ended),
            streams_broken: self.streams_broken.saturating_sub(earlier.streams_broken),
            small: self.small.saturating_sub(earlier.small),
            slower: self.slower.saturating_sub(earlier.slower),
            given_up: self.given_up.saturating_sub(earlier.given_up),
            answered_late: self.answered_late.saturating_sub(earlier.answered_late),
        }
    }

    /// Whether any of them is a failure, a refusal or slow.
    pub fn has_faults(&self) -> bool {
        let Self { server_fault, tool_fault, client_fault, slow, .. } = *self;
        0 < server_fault
            .saturating_add(tool_fault)
            .saturating_add(client_fault)
            .saturating_add(slow)
    }

    /// Counts one request.
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::ServerFault => self.server_fault += 1,
            Outcome::ToolFault => self.tool_fault += 1,
            Outcome::ClientFault => self.client_fault += 1,
            Outcome::Neutral => self.neutral += 1,
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
            with_latency: self.with_latency.saturating_add(other.with_latency),
            repeatable: self.repeatable.saturating_add(other.repeatable),
            repeatable_failed: self.repeatable_failed.saturating_add(other.repeatable_failed),
            streams_ended: self.streams_ended.saturating_add(other.streams_ended),
            streams_broken: self.streams_broken.saturating_add(other.streams_broken),
            small: self.small.saturating_add(other.small),
            slower: self.slower.saturating_add(other.slower),
            given_up: self.given_up.saturating_add(other.given_up),
            answered_late: self.answered_late.saturating_add(other.answered_late),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Outcome {
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
