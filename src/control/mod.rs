//! The control API: JSON lines on a unix socket, between the daemon and the command line.
//!
//! 1. A [`client`](ControlClient) connects, and sends one [`Request`] as one line ([`lines`] frames
//!    them, [`protocol`] defines them).
//! 2. The [`server`] reads it, takes the identity of the client from the kernel, and [`validate`]s
//!    the request. [`authorize`] decides whether the client may act.
//! 3. The daemon sends [`Response`] lines, with a [`Status`] or events of the timeline, until it
//!    closes the connection.

mod access;
mod client;
mod counters;
mod explanation;
mod incident_protocol;
mod lines;
mod protocol;
mod reload_report;
pub mod server;
mod status;
mod validate;

pub use crate::control::access::{
    ADMINS_GROUP, READERS_GROUP, authorize, ensure_not_a_release, with_user_name,
};
pub use crate::control::client::ControlClient;
pub use crate::control::counters::{Counters, HISTOGRAM_BOUNDS, Histogram};
pub use crate::control::explanation::{Explanation, ExplanationPoint, SettingValue};
pub use crate::control::incident_protocol::{
    IncidentReply, IncidentRequest, IncidentRow, ROWS_MAX,
};
pub use crate::control::protocol::{RefusalCode, Request, Response};
pub use crate::control::reload_report::ReloadReport;
pub use crate::control::status::{
    ArmOutcomes, ArmStatus, CallStatus, ChannelStatus, IncidentStatus, LastOutcome, ReleaseStatus,
    RollbackCount, Status, TrialStatus,
};
pub use crate::control::validate::{printable, unknown_service};
