//! Legacy sessions: their ids, their state, their migration, and how they survive the daemon.
//!
//! A backend opens a session, and [`id`] mints the id that the client gets. [`table`] holds one
//! [`Session`] for each id; its [`state_machine`] decides what happens to each message of the client.
//! [`snapshot`] records how the client opened the session, so that [`migration`] can open it again at
//! another release. [`persistence`] writes each change to disk as a [`record`], and [`replication`]
//! sends it to the successor of this daemon.

mod change_sink;
mod credentials;
mod eviction;
mod id;
mod list_notice;
mod live_session;
pub(super) mod migration;
mod occupancy;
mod persistence;
mod recent_moves;
mod record;
mod replication;
mod resume_at;
mod snapshot;
mod state_machine;
mod subject;
mod table;
mod tracked_requests;

pub(super) use change_sink::ChangeSink;
pub use id::SessionIdSecret;
pub(super) use id::{BACKEND_ID_MAX, SessionId, SessionKey};
pub(super) use live_session::streams::OpenStream;
pub(super) use live_session::{Admission, InFlightGuard, Session};
pub(super) use occupancy::SessionLimits;
pub(super) use record::{SessionLocation, SessionRecord, decode_key, encode_key};
pub(super) use resume_at::{ResumeAt, StreamCommand};
pub(super) use state_machine::{
    Action, ClientMessageKind, Environment, ReplayDecision, replay_decision,
};
pub(super) use table::{EvictionReport, Sessions};
