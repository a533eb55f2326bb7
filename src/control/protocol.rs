//! The messages: a client sends one [`Request`] and reads [`Response`]s.

use serde::{Deserialize, Serialize};

use crate::control::explanation::Explanation;
use crate::control::incident_protocol::{IncidentReply, IncidentRequest};
use crate::control::reload_report::ReloadReport;
use crate::control::status::Status;
use crate::model::{DeployRequest, ReleaseNumber, TimelineEntry, Waiver};

/// What a client asks the daemon to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Deploy a release. With `wait`, events follow until it is accepted, failed or rolled back.
    Deploy(DeployRequest),
    /// Roll back to the previous release. With `wait`, events follow until its end.
    Rollback {
        /// The service.
        service: String,
        /// Without a drain.
        cut: bool,
        /// Also to a release whose artifact changed since its deploy.
        #[serde(default)]
        force: bool,
        /// The reason.
        because: String,
        /// Follow to the end.
        #[serde(default)]
        wait: bool,
    },
    /// Accept the release on trial now.
    Promote {
        /// The service.
        service: String,
        /// The reason.
        because: String,
    },
    /// Stop automatic rollbacks.
    Hold {
        /// The service.
        service: String,
        /// The reason.
        because: String,
    },
    /// Allow automatic rollbacks again.
    Resume {
        /// The service.
        service: String,
        /// The reason.
        because: String,
    },
    /// Report the state of the services.
    Status {
        /// One service; all by default.
        #[serde(default)]
        service: Option<String>,
    },
    /// Explain why a service is where it is, and what would change that.
    Explain {
        /// The service.
        service: String,
    },
    /// Read the configuration again.
    Reload {},
    /// Send the timeline of one deploy.
    Timeline {
        /// The service.
        service: String,
        /// The deploy; the newest by default.
        #[serde(default)]
        deploy: Option<ReleaseNumber>,
        /// Continue with new events.
        #[serde(default)]
        follow: bool,
    },
    /// Send an example over a channel, or over all.
    NotifyTest {
        /// One channel; all by default.
        #[serde(default)]
        channel: Option<String>,
    },
    /// List, show or change incidents.
    Incident {
        /// What exactly.
        request: IncidentRequest,
    },
}

impl Request {
    /// The service that the request names.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Deploy(DeployRequest { service, .. })
            | Self::Rollback { service, .. }
            | Self::Promote { service, .. }
            | Self::Hold { service, .. }
            | Self::Resume { service, .. }
            | Self::Explain { service }
            | Self::Timeline { service, .. } => Some(service),
            Self::Status { service } => service.as_deref(),
            Self::NotifyTest { .. } | Self::Reload {} => None,
            Self::Incident { request } => request.service(),
        }
    }
}

/// One line of the response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// The daemon accepted the command and recorded it.
    Accepted {
        /// The deploy it belongs to.
        deploy: ReleaseNumber,
        /// The reason in the timeline.
        because: String,
    },
    /// Nothing was to do: the release is active already.
    Unchanged {
        /// The deploy that brought it.
        deploy: ReleaseNumber,
        /// What is there.
        because: String,
    },
    /// The command changed nothing.
    Refused {
        /// The kind, for the exit code.
        code: RefusalCode,
        /// The reason.
        because: String,
        /// The option of a deploy that waives the guard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waiver: Option<Waiver>,
    },
    /// An event of the timeline.
    #[serde(rename = "entry")]
    Event(Box<TimelineEntry>),
    /// The state of one service.
    Status(Box<Status>),
    /// Why a service is where it is.
    Explanation {
        /// What exactly.
        explanation: Explanation,
    },
    /// The daemon took a new configuration.
    Reloaded {
        /// What became of each setting that differs.
        report: ReloadReport,
    },
    /// Something that the operator should know; the command goes on.
    Warning {
        /// What.
        because: String,
    },
    /// What came back from a channel.
    Notified {
        /// The channel.
        channel: String,
        /// Whether its receiver accepted the notice.
        ok: bool,
        /// What it answered, or why it failed.
        because: String,
    },
    /// Something about an incident.
    Incident {
        /// What exactly.
        reply: IncidentReply,
    },
}

impl Response {
    /// A refusal that no option waives.
    pub fn refused(code: RefusalCode, because: String) -> Self {
        Self::Refused { code, because, waiver: None }
    }
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Another operation must end first.
    Busy,
    /// A guard blocks it, or it is not possible now.
    Refused,
    /// There is no such service or deploy.
    #[serde(alias = "unknown")]
    NotFound,
    /// The daemon cannot do it, for example because its disk is full.
    Failed,
    /// The client has no permission.
    Forbidden,
    /// The request is not valid.
    Malformed,
    /// The configuration has errors.
    InvalidConfig,
}
