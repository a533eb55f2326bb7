//! The document model of a post-mortem. The renderers and the JSON show the same object.

use serde::{Deserialize, Serialize};

use crate::incident::action::Action;
use crate::incident::evidence::EvidenceTrack;
use crate::incident::facts::{Change, FailureSample, OutputGroup};
use crate::incident::human::HumanParts;
use crate::incident::traffic::Point;
use crate::model::ReleaseNumber;

/// The form of the JSON. A field is added without a new number; one is never given a new meaning.
pub const SCHEMA: &str = "rollbackd.postmortem/1";

/// One post-mortem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostMortem {
    /// [`SCHEMA`].
    pub schema: String,
    /// The service.
    pub service: String,
    /// The incident; also the number of the deploy.
    pub incident: ReleaseNumber,
    /// The version that was deployed.
    pub version: String,
    /// The version before it.
    #[serde(default)]
    pub previous: Option<String>,
    /// `opened`, `draft`, `in review` or `closed`.
    pub state: String,
    /// What happened, in a few words.
    pub title: String,
    /// Who is affected, what the daemon did, whether a person is needed: one line.
    pub headline: String,
    /// One paragraph for a reader outside of the team.
    pub summary: String,
    /// What clients met.
    pub impact: Impact,
    /// The milestones and everything else that the daemon saw, in order.
    pub timeline: Vec<TimelineRow>,
    /// What else happened on the host within half an hour, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearby: Vec<String>,
    /// Time to detect and to resolve, in parts.
    pub durations: Vec<Duration>,
    /// Calls with faults, most faults first.
    pub failures: Vec<CallFailure>,
    /// Failing calls, masked.
    #[serde(default)]
    pub samples: Vec<FailureSample>,
    /// What this deploy changed.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What the release printed around the onset.
    #[serde(default)]
    pub output: Vec<OutputGroup>,
    /// Why the output is not known, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_unknown: Option<String>,
    /// Why no failed call is listed, where that does not mean that none failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures_unknown: Option<String>,
    /// The arithmetic of the verdict.
    pub evidence_text: String,
    /// The evidence over time.
    #[serde(default)]
    pub evidence: Option<EvidenceTrack>,
    /// The error rate of both releases over time.
    #[serde(default)]
    pub error_rate: ErrorRate,
    /// Possible causes, the most likely first.
    pub hypotheses: Vec<Offer>,
    /// What let it happen, or made it worse.
    pub factors: Vec<Offer>,
    /// What was done, and what is left.
    pub remediation: Vec<String>,
    /// What went well, as far as the daemon can tell.
    pub went_well: Vec<String>,
    /// What did not.
    pub went_badly: Vec<String>,
    /// The action items.
    pub actions: Vec<Action>,
    /// Action items that the factors suggest.
    pub suggested_actions: Vec<String>,
    /// Earlier incidents with the same signature, newest first.
    pub recurrence_of: Vec<ReleaseNumber>,
    /// What people wrote.
    pub human: HumanParts,
    /// The version of what people wrote; an edit names it.
    pub human_digest: String,
    /// What is still missing before it can be closed.
    pub missing: Vec<String>,
}

/// What clients met.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// Requests that got a server fault.
    pub server_faults: u64,
    /// Tool calls that returned an error.
    pub tool_faults: u64,
    /// Requests that the release rejected.
    pub client_faults: u64,
    /// Requests in the same time, on both releases.
    pub requests: u64,
    /// Whether the requests of that time are not counted, or not yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// Whether the requests are counted up to the verdict only, because the bake was over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub until_verdict: bool,
    /// Sessions that went on at the previous release, or will at their next request.
    pub sessions_moved: u64,
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Open requests that got an error or no answer because of the rollback.
    pub requests_interrupted: u64,
    /// From the first to the last bad answer, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Bad requests that the objective allows in an hour of this traffic, used up by this incident: 1.0
    /// is all of it.
    pub budget_burned: Option<f64>,
    /// What each further minute would have cost, and the assumption.
    pub counterfactual: Option<String>,
}

impl Impact {
    /// A number of requests, if they are counted.
    pub(super) fn count(&self, requests: u64) -> String {
        if self.uncounted { "not counted".to_owned() } else { requests.to_string() }
    }

    /// What the number of requests counts.
    pub(super) fn requests_label(&self) -> &'static str {
        if self.until_verdict { "Requests up to the verdict" } else { "Requests in the same time" }
    }
}

/// One line of the timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineRow {
    /// The time, UTC.
    pub at: String,
    /// Milliseconds since the deploy; negative before it.
    pub ms: i64,
    /// The kind: one of the timeline, or `onset`, `first bad`, `last bad`, `notified` and so on.
    pub kind: String,
    /// What happened.
    pub text: String,
    /// Whether it is a milestone.
    pub is_milestone: bool,
}

/// A part of the time to detect or to resolve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duration {
    /// What took this time.
    pub part: String,
    /// Milliseconds.
    pub ms: u64,
    /// What would have to change to be faster.
    pub faster: String,
}

/// The faults of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallFailure {
    /// The call.
    pub call: String,
    /// Server faults on the new release.
    pub server_faults: u64,
    /// Tool faults on it.
    pub tool_faults: u64,
    /// Calls that it rejected.
    pub client_faults: u64,
    /// Its requests there.
    pub requests: u64,
    /// Faults and requests on the previous release in the same time.
    pub control: Option<(u64, u64)>,
}

/// The error rate of both releases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorRate {
    /// The new release.
    pub trial: Vec<Point>,
    /// The previous one.
    pub control: Vec<Point>,
    /// Milestones in milliseconds since the bake began: name and time.
    pub marks: Vec<(String, u64)>,
}

/// A hypothesis or a factor: what the daemon offers, and what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The rule that made it.
    pub rule: String,
    /// The claim.
    pub title: String,
    /// What the daemon saw.
    pub observation: String,
    /// The setting that it is about, if it is about one.
    #[serde(default)]
    pub setting: Option<String>,
    /// What could be done, as an action item.
    #[serde(default)]
    pub action: Option<String>,
    /// How much the observation speaks for it, 0 to 100.
    pub weight: u8,
}

impl PostMortem {
    /// What stands in place of the output, where there is none.
    pub(super) fn without_output(&self) -> String {
        match &self.output_unknown {
            Some(why) => format!("not known: {why}"),
            None => "nothing is on record".to_owned(),
        }
    }
}

impl Offer {
    /// A claim with its observation.
    pub fn new(rule: &str, weight: u8, title: String, observation: String) -> Self {
        Self { rule: rule.to_owned(), title, observation, setting: None, action: None, weight }
    }

    /// The setting that it is about.
    #[must_use]
    pub fn setting(mut self, setting: impl Into<String>) -> Self {
        self.setting = Some(setting.into());
        self
    }

    /// What could be done.
    #[must_use]
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.action = Some(action.into());
        self
    }
}
