//! One request that waits for its answer.

use std::sync::Arc;

use super::message::Message;
use super::tally::Cells;

/// A request without its answer.
#[derive(Debug)]
pub(super) struct Open {
    /// Its id, as the client wrote it.
    pub id: Box<str>,
    /// Where it is counted.
    pub call: Arc<Cells>,
    /// What its answer will say of a task.
    pub task: Task,
}

/// What an answer says of a task.
#[derive(Debug)]
pub(super) enum Task {
    /// Nothing.
    No,
    /// That it began.
    Begins,
    /// That it is over, where the answer tells it: how it stands.
    Stands(Box<str>),
    /// That it is over.
    Ends(Box<str>),
}

/// Whether a request changes nothing, however often it is asked; of tools nothing is known here.
pub(super) fn safe(method: &str) -> bool {
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

impl Task {
    /// What the answer to a request will say.
    pub(super) fn of(method: &str, message: &Message) -> Self {
        match (method, &message.task) {
            ("tasks/result" | "tasks/cancel", Some(id)) => Self::Ends(id.clone()),
            ("tasks/get", Some(id)) => Self::Stands(id.clone()),
            _ if message.begins_task => Self::Begins,
            _ => Self::No,
        }
    }
}
