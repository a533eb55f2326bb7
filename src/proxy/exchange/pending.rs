//! One request that waits for its response.

use std::sync::Arc;

use crate::mcp::message::Message;
use crate::proxy::backend::counted_subject::CountedRequest;
use crate::proxy::backend::outcome_counters::CounterCells;

/// A request without a response.
#[derive(Debug)]
pub(in crate::proxy) struct PendingRequest {
    /// Its id, as the client wrote it.
    pub id: Box<str>,
    /// The counters of its call.
    pub counters: Arc<CounterCells>,
    /// Where it is counted for a trial, if it is.
    pub counted: Option<CountedRequest>,
    /// What its response will say about a task.
    pub task: TaskEffect,
    /// Whether its response says which version was negotiated.
    pub is_initialize: bool,
    /// Whether it is counted as slower already, because it is open for so long.
    pub is_overdue: bool,
}

/// What a response says about a task.
#[derive(Debug)]
pub(in crate::proxy) enum TaskEffect {
    /// Nothing.
    Unchanged,
    /// It started.
    Starts,
    /// Its status, which may be final.
    ReportsStatus(Box<str>),
    /// It ended.
    Ends(Box<str>),
}

impl TaskEffect {
    /// What the response to this request will say.
    pub(in crate::proxy) fn from_request(method: &str, message: &Message) -> Self {
        match (method, &message.task_id) {
            ("tasks/result" | "tasks/cancel", Some(id)) => Self::Ends(id.clone()),
            ("tasks/get", Some(id)) => Self::ReportsStatus(id.clone()),
            _ if message.requests_task => Self::Starts,
            _ => Self::Unchanged,
        }
    }
}
