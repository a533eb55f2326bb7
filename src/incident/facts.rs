//! The facts of an incident, as the daemon gathered them when it wrote the draft.
//!
//! They are kept beside the record, because the timeline and the recording are removed after some
//! time. Everything in them is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::cause::{Cause, cause_of};
use crate::incident::evidence::EvidenceTrack;
use crate::incident::traffic::{ReleaseTraffic, Traffic};
use crate::model::{Moment, Release, ReleaseNumber, TimelineEntry, TimelineEvent, Verdict};

/// The form of the file.
pub const FACTS_SCHEMA: u32 = 1;
/// Events of the timeline that are kept: the first ones and the last ones.
pub const TIMELINE_MAX: usize = 400;

/// A record is written once a second. One that is this much older than the verdict has ended.
const RECORD_DELAY_MAX: Duration = Duration::from_secs(5);

/// Everything that the document is made of, except what people write.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The form of this object.
    pub schema: u32,
    /// The timeline of the deploy.
    pub timeline: Vec<TimelineEntry>,
    /// Events between the first and the last ones that are left out.
    #[serde(default)]
    pub timeline_omitted: u64,
    /// The recorded signals of the bake, summed; none without a bake.
    #[serde(default)]
    pub traffic: Option<Traffic>,
    /// The evidence over time; none without a bake.
    #[serde(default)]
    pub evidence: Option<EvidenceTrack>,
    /// Settings of the service that the factors are about, as the configuration writes them.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Failing calls, shortened and masked.
    #[serde(default)]
    pub samples: Vec<FailureSample>,
    /// What the release printed around the onset.
    #[serde(default)]
    pub output: Vec<OutputGroup>,
    /// Why the output is not known, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_unknown: Option<String>,
    /// Files, labels and settings that differ from the previous release.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// What else happened on the host within half an hour, a line each.
    #[serde(default)]
    pub nearby: Vec<String>,
    /// Reloads of the configuration of the service in the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reloads: Vec<Reload>,
}

/// A reload that changed settings of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When.
    pub at: Moment,
    /// Settings that were in effect at once.
    pub now: Vec<String>,
    /// Settings that waited for the next deploy.
    pub next_deploy: Vec<String>,
}

/// One failing call, as the client saw the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureSample {
    /// The release that answered.
    pub release: ReleaseNumber,
    /// The call.
    pub call: String,
    /// The JSON-RPC error code, or the HTTP status where there is none.
    #[serde(default)]
    pub code: Option<i64>,
    /// The message, shortened and masked.
    pub message: String,
}

/// Lines of output with one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputGroup {
    /// The template, `<*>` where the lines differ; masked.
    pub template: String,
    /// Lines around the onset.
    pub count: u64,
    /// Whether the previous release never printed such a line.
    pub is_new: bool,
    /// Whether it names an error.
    #[serde(default)]
    pub is_error: bool,
    /// One of the lines, masked.
    pub example: String,
}

/// Something that this deploy changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `artifact`, `setting`, `contract`, `configuration`, `label`, `unit`.
    pub kind: String,
    /// What changed, on one line.
    pub text: String,
}

impl FailureSample {
    /// The answer as the end of an observation: `; answer: -32603 "..."`.
    pub(super) fn answer(&self) -> String {
        let code = self.code.map(|code| format!("{code} ")).unwrap_or_default();
        format!("; answer: {code}\"{}\"", self.message)
    }
}

impl OutputGroup {
    /// The mark of a line that the previous release never printed.
    pub(super) fn mark(&self) -> &'static str {
        if self.is_new { "new: " } else { "" }
    }
}

impl Facts {
    /// Takes the timeline over, bounded.
    pub fn set_timeline(&mut self, mut entries: Vec<TimelineEntry>) {
        let surplus = entries.len().saturating_sub(TIMELINE_MAX);
        if surplus > 0 {
            entries.drain(TIMELINE_MAX / 2..TIMELINE_MAX / 2 + surplus);
        }
        self.timeline_omitted = surplus as u64;
        self.timeline = entries;
    }

    /// The release of the deploy.
    pub fn release(&self) -> Option<&Release> {
        self.timeline.iter().find_map(|entry| match &entry.event {
            TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
                Some(release)
            }
            _ => None,
        })
    }

    /// The release that had the traffic before.
    pub fn previous_release(&self) -> Option<&Release> {
        self.timeline.iter().find_map(|entry| match &entry.event {
            TimelineEvent::Deployed { carried_over, .. }
            | TimelineEvent::Replaced { carried_over, .. } => carried_over.active.as_ref(),
            _ => None,
        })
    }

    /// The traffic of the release on trial.
    pub fn trial(&self) -> Option<&ReleaseTraffic> {
        self.traffic.as_ref()?.release(self.release()?.number)
    }

    /// The traffic of the previous release in the same time.
    pub fn control(&self) -> Option<&ReleaseTraffic> {
        self.traffic.as_ref()?.release(self.previous_release()?.number)
    }

    /// An error answer of the release on trial, to this call or to any.
    pub fn sample(&self, call: Option<&str>) -> Option<&FailureSample> {
        let release = self.release()?.number;
        let mut of_trial = self.samples.iter().filter(|it| it.release == release);
        of_trial.find(|it| !it.message.is_empty() && call.is_none_or(|call| it.call == call))
    }

    /// A setting, as the configuration writes it.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The first error in the output that the previous release never printed.
    pub fn new_error(&self) -> Option<&OutputGroup> {
        self.output.iter().find(|it| it.is_new && it.is_error)
    }

    /// Whether anything is known yet.
    pub fn is_gathered(&self) -> bool {
        !self.timeline.is_empty()
    }

    /// The verdict after the bake, if the first one against the release came so late. What was recorded of
    /// its traffic ends with the bake.
    pub fn verdict_after_bake(&self) -> Option<&Verdict> {
        let was_accepted = self.find(|it| matches!(it, TimelineEvent::Accepted { .. }))?;
        let first = self.timeline.iter().find(|entry| entry.event.verdict().is_some())?;
        first.event.verdict().filter(|_| was_accepted.seq < first.seq)
    }

    /// Whether the record of the traffic ends before the verdict, such as on a full disk: its sums would
    /// claim that little failed.
    pub fn record_ends_early(&self) -> bool {
        let found = self.reaction().map(|(found, _)| found.moment);
        let last = self.traffic.as_ref().map(|it| it.last);
        last.zip(found).is_some_and(|(last, found)| RECORD_DELAY_MAX <= found.since(last))
    }

    /// Whether it ended after the last event that added to it. A release that is accepted while one user
    /// fails, or while its answers differ, goes on like that.
    pub fn is_over(&self) -> bool {
        let mut was_accepted = false;
        for entry in self.timeline.iter().rev() {
            match (cause_of(entry), &entry.event) {
                (Some(Cause::OneUser | Cause::DifferentAnswers), _) => return false,
                (Some(_), _) => return was_accepted,
                (_, TimelineEvent::Cleared | TimelineEvent::Recovered) => return true,
                (_, TimelineEvent::Accepted { .. }) => was_accepted = true,
                _ => (),
            }
        }
        false
    }

    /// Whether the traffic went back.
    pub fn is_rollback(&self) -> bool {
        self.find(|it| matches!(it, TimelineEvent::Decided { .. })).is_some()
    }

    /// Whether both releases failed at some time.
    pub fn both_failed(&self) -> bool {
        let both = [Cause::SharedOutage, Cause::RollbackIncomplete];
        self.timeline.iter().any(|entry| cause_of(entry).is_some_and(|it| both.contains(&it)))
    }

    /// The event that the reaction is counted from: the rollback, or what held it back before. The next
    /// one is the rollback itself, if it was held back.
    pub fn reaction(&self) -> Option<(&TimelineEntry, Option<&TimelineEntry>)> {
        let mut held = None;
        for entry in &self.timeline {
            match &entry.event {
                TimelineEvent::Blocked { .. } if cause_of(entry).is_some_and(Cause::is_breach) => {
                    held = held.or(Some(entry));
                }
                TimelineEvent::Cleared => held = None,
                TimelineEvent::Detected { .. } => {
                    return Some(held.map_or((entry, None), |it| (it, Some(entry))));
                }
                _ => (),
            }
        }
        let first = self.find(|it| matches!(it, TimelineEvent::Blocked { .. }));
        held.or(first).map(|it| (it, None))
    }

    /// The first event that fits.
    pub fn find(&self, fits: impl Fn(&TimelineEvent) -> bool) -> Option<&TimelineEntry> {
        self.timeline.iter().find(|entry| fits(&entry.event))
    }
}
