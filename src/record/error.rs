use std::io;

/// Why the state directory or a file in it cannot be used: the action that failed, and its cause.
#[derive(Debug, thiserror::Error)]
#[error("{action}")]
pub struct StateError {
    action: String,
    source: io::Error,
}

impl StateError {
    pub(super) fn new(action: String, source: io::Error) -> Self {
        Self { action, source }
    }

    /// The kind of the cause.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The action and its cause, in one line.
    pub fn with_cause(&self) -> String {
        format!("{}: {}", self.action, self.source)
    }
}
