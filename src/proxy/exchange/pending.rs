//! One request that waits for its answer.

use std::sync::Arc;

use crate::mcp::message::Message;
use crate::proxy::backend::outcome_counters::CounterCells;

/// A request without its answer.
#[derive(Debug)]
pub(in crate::proxy) struct PendingRequest {
    /// Its id, as the client wrote it.
    pub id: Box<str>,
    /// Where it is counted.
    pub counters: Arc<CounterCells>,
    /// What its answer will say of a task.
    pub task: TaskEffect,
}

/// What an answer says of a task.
#[derive(Debug)]
pub(in crate::proxy) enum TaskEffect {
    /// Nothing.
    Unchanged,
    /// That it began.
    Starts,
    /// That it is over, where the answer tells it: how it stands.
    ReportsStatus(Box<str>),
    /// That it is over.
    Ends(Box<str>),
}

/// Whether a request changes nothing, however often it is asked; of tools nothing is known here.
pub(in crate::proxy) fn is_idempotent(method: &str) -> bool {
    match method {
        "ping"
        | "initialize"
        | "server/discover"
        | "completion/complete"
        | "prompts/get"
        | "logging/setLevel"
        | "notifications/initialized"
        | "tasks/get"
        | "tasks/list" => true,
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => true,
        _ => method.ends_with("/list"),
    }
}

impl TaskEffect {
    /// What the answer to a request will say.
    pub(in crate::proxy) fn from_request(method: &str, message: &Message) -> Self {
        match (method, &message.task_id) {
            ("tasks/result" | "tasks/cancel", Some(id)) => Self::Ends(id.clone()),
            ("tasks/get", Some(id)) => Self::ReportsStatus(id.clone()),
            _ if message.requests_task => Self::Starts,
            _ => Self::Unchanged,
        }
    }
}
