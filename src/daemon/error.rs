//! Why the daemon cannot start, or cannot go on.

use std::error::Error;
use std::fmt;

use crate::record::StateError;

/// What the daemon tried, and the cause of the failure.
#[derive(Debug)]
pub struct StartError {
    message: String,
    source: Box<dyn Error + Send + Sync>,
    had_started: bool,
}

impl StartError {
    pub(super) fn new(message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { message, source: source.into(), had_started: false }
    }

    /// A part ended without which the daemon must not go on.
    pub(super) fn part_failed(reason: String) -> Self {
        let message = "the daemon cannot go on, and ends to be started again".to_owned();
        Self { message, source: reason.into(), had_started: true }
    }

    /// Whether the daemon had started.
    pub fn had_started(&self) -> bool {
        self.had_started
    }

    /// The error and its causes, in one line.
    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    }
}

impl From<StateError> for StartError {
    fn from(error: StateError) -> Self {
        Self::new("cannot use the state directory".to_owned(), error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
