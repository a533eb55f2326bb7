//! The append-only record of one incident: what happened to it, one entry a line.

use serde::{Deserialize, Serialize};

use crate::incident::action::Action;
use crate::incident::cause::Cause;
use crate::incident::signature::Signature;
use crate::incident::verdict::ReviewVerdict;
use crate::model::{Moment, ReleaseNumber};

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentEntry {
    /// The wall's time: RFC 3339, UTC, microseconds.
    #[serde(rename = "at")]
    pub wall_time: String,
    /// The daemon's clock.
    pub moment: Moment,
    /// What happened.
    #[serde(flatten)]
    pub event: IncidentEvent,
}

/// A user who did something, from the kernel and the system's user database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// User id.
    pub uid: u32,
    /// User name; empty where the system has none.
    #[serde(default)]
    pub name: String,
}

/// What can happen to an incident. Its state is the fold of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum IncidentEvent {
    /// The daemon opened it for a deploy.
    Opened {
        /// The service.
        service: String,
        /// The deploy; also the number of the incident.
        deploy: ReleaseNumber,
        /// The version of the release.
        version: String,
        /// Why.
        cause: Cause,
        /// The event of the timeline that opened it.
        seq: u64,
        /// The reason in the timeline.
        because: String,
    },
    /// A later event of the same deploy.
    Joined {
        /// Why.
        cause: Cause,
        /// The event of the timeline.
        seq: u64,
        /// The reason in the timeline.
        because: String,
    },
    /// The daemon wrote the draft.
    Drafted {
        /// The last event of the timeline that it contains.
        seq: u64,
        /// What identifies a repetition.
        signature: Signature,
        /// Earlier incidents with the same signature, newest first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recurrence_of: Vec<ReleaseNumber>,
        /// Requests that failed.
        failed: u64,
        /// All requests in the same time.
        requests: u64,
        /// Whether what opened the incident had ended, so that no page waits any more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_over: bool,
    },
    /// A person wrote into the document.
    Edited {
        /// Who.
        by: Author,
        /// The version of the text after it.
        digest: String,
        /// The parts that changed.
        parts: Vec<String>,
    },
    /// A person takes care of it.
    Acknowledged {
        /// Who.
        by: Author,
    },
    /// A channel accepted a notification.
    Notified {
        /// The channel.
        channel: String,
        /// Identifies the notification.
        key: String,
    },
    /// The daemon reminded of the open review.
    Reminded,
    /// An action item was added.
    ActionAdded {
        /// Who.
        by: Author,
        /// The item.
        action: Action,
    },
    /// An action item is done.
    ActionDone {
        /// Who.
        by: Author,
        /// The item.
        item: u32,
    },
    /// The deploy that followed found an action item that is still not so.
    ActionReopened {
        /// The item.
        item: u32,
        /// Why.
        because: String,
    },
    /// A person closed it.
    Closed {
        /// Who.
        by: Author,
        /// Whether the daemon was right.
        #[serde(default)]
        verdict: Option<ReviewVerdict>,
        /// Why no review is needed, if none is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no_review: Option<String>,
    },
    /// It is open again.
    Reopened {
        /// Why.
        because: String,
    },
}
