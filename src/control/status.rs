//! The state of a service, as `status` and the metrics report it.

use serde::{Deserialize, Serialize};

use crate::control::counters::Counters;
use crate::model::{BoundUse, Counts, Evidence, McpPath, ReleaseNumber, Unjudged};

/// The state of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub service: String,
    /// Its public address.
    pub listen: String,
    /// `act` or `observe`.
    pub mode: String,
    /// The newest deploy.
    pub deploy: ReleaseNumber,
    /// The phase in one word.
    pub phase: String,
    /// What it waits for.
    pub waits_for: String,
    /// Seconds in this phase.
    pub since_s: f64,
    /// Seconds until the phase's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "left_s")]
    pub remaining_s: Option<f64>,
    /// The reason of its hold, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// Version of the active release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Version of the warm release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<String>,
    /// The releases that run.
    pub releases: Vec<ReleaseStatus>,
    /// The availability objective, 0 to 1.
    pub objective: f64,
    /// The evidence against the active release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The verdict, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The rule that decided the verdict, with its evidence; only of a breach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The finding alone: `healthy`, `degraded` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// Bad requests that remain of the error budget of the last hour.
    #[serde(alias = "budget_left")]
    pub budget_remaining: f64,
    /// Releases that were rolled back and need `--allow-quarantined`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<String>,
    /// The automatic rollbacks of the last 24 hours. None from a daemon before 0.2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollbacks: Option<RollbackCount>,
    /// Settings that a reload changed and that wait for the next deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaits_deploy: Vec<String>,
    /// Settings that a reload found in the file and that wait for a restart of the daemon: those of the
    /// service by name, those of the daemon as `daemon.SETTING`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub awaits_restart: Vec<String>,
    /// What prevents decisions, such as a full disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "trouble")]
    pub error: Option<String>,
    /// The paths besides the endpoint at which clients send JSON-RPC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp_paths: Vec<McpPath>,
    /// The bounds of which at least 90 % are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub near_limits: Vec<BoundUse>,
    /// What happened since the daemon started.
    #[serde(default)]
    #[serde(alias = "totals")]
    pub counters: Counters,
    /// Messages that the system's journal did not get, since the daemon started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub journal_lost: u64,
    /// The newest outcome of the deploys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastOutcome>,
    /// What an operator has to do, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<String>,
    /// Requests that were judged in the last hour. Without one, the error budget is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_requests: Option<u64>,
    /// The trial, while a ramp gives the new release a part of the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
    /// With `ramp = "auto"`, the ramp of the deploy under way and its reason; while nothing is on trial,
    /// that of a deploy now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<String>,
    /// Incidents that need a review.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incidents: Option<IncidentStatus>,
    /// The channels that take the notices of this service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<ChannelStatus>,
    /// Why notices can be lost, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify_error: Option<String>,
}

/// How a channel is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChannelStatus {
    /// Its name.
    pub name: String,
    /// Its type, such as `webhook`.
    #[serde(rename = "type")]
    pub channel_type: String,
    /// Notices that wait for it.
    pub waiting: u64,
    /// Notices that it delivered since the daemon started.
    pub delivered: u64,
    /// Deliveries that failed since the daemon started.
    pub failed: u64,
    /// For how many seconds it has been failing, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_s: Option<u64>,
    /// Why the last delivery failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A trial that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// The step of the ramp, from 1.
    pub step: u32,
    /// How many steps the ramp has.
    pub of: u32,
    /// The share of the users that is on trial, 0 to 1.
    pub share: f64,
    /// The control, then the trial.
    pub arms: Vec<ArmStatus>,
    /// What the tests say, in a sentence.
    pub summary: String,
    /// What the step or the verdict still needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Live sessions of the control that cannot move, and so do not take part.
    #[serde(default)]
    pub sessions_pinned: u64,
}

/// One arm of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmStatus {
    /// `control` or `trial`.
    pub arm: String,
    /// The version of its release.
    pub version: String,
    /// Users whose requests count.
    pub subjects: u64,
    /// Their requests.
    pub requests: u64,
    /// The failed ones among them.
    pub failed: u64,
    /// What the requests of its release came to since the trial began, also those of no user on trial.
    #[serde(default)]
    pub outcomes: ArmOutcomes,
}

/// What requests came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmOutcomes {
    /// Faults of the server.
    pub server_fault: u64,
    /// Tools that answered `isError`.
    pub tool_fault: u64,
    /// Faults of the client: no evidence.
    pub client_fault: u64,
    /// Faults of neither side: no evidence.
    pub neutral: u64,
}

/// What happened last at a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastOutcome {
    /// The kind of the timeline's event; `rolled_back` when the traffic went back.
    pub kind: String,
    /// The deploy.
    pub deploy: ReleaseNumber,
    /// When: RFC 3339, UTC.
    pub at: String,
    /// Seconds since then.
    pub since_s: f64,
    /// What happened, and why.
    pub text: String,
    /// The rule that decided, with its evidence, where a verdict did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// The incidents of one service that need a review.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentStatus {
    /// How many.
    pub open: u64,
    /// The number of the oldest one, and its age in seconds.
    pub oldest: (ReleaseNumber, u64),
    /// Whether the review of the oldest one is overdue.
    pub overdue: bool,
    /// The newest incident that waits for a person and was not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<ReleaseNumber>,
    /// Why incidents cannot be recorded, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The state of one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Its version.
    pub version: String,
    /// The deploy that brought it.
    pub number: ReleaseNumber,
    /// The slot where it runs.
    pub slot: String,
    /// `active`, `warm`, `starting` or `leaving`.
    pub role: String,
    /// The result of the last probe.
    pub probe: String,
    /// Live sessions of both eras.
    pub sessions: u64,
    /// Those among them that speak HTTP+SSE (2024-11-05): they do not move.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sse_sessions: u64,
    /// Open requests.
    pub in_flight: u64,
    /// Requests a second, over the last ten seconds.
    pub rate: f64,
    /// Share of bad requests over the last minute, 0 to 1.
    pub error_rate: f64,
    /// Requests that were judged in the last minute. Without one, the error rate is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recent_requests: Option<u64>,
    /// Every request since the daemon started.
    pub counts: Counts,
    /// What passed it since the daemon started, and is no evidence about it.
    #[serde(default, skip_serializing_if = "Unjudged::is_empty")]
    pub unjudged: Unjudged,
    /// The counts by method and tool, those with most errors first; at most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallStatus>,
}

/// The outcomes of the requests of one method and tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallStatus {
    /// The method.
    pub method: String,
    /// The tool, prompt or resource; empty where there is none.
    pub name: String,
    /// Every request since the daemon started.
    pub counts: Counts,
}

/// The automatic rollbacks of the last 24 hours, and their limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollbackCount {
    /// How many there were.
    pub today: usize,
    /// How many there may be; beyond them the operator is paged instead.
    pub limit: usize,
    /// Where none is left: the seconds until one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none_left_s: Option<f64>,
}
