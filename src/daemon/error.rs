//! Why the daemon cannot start.

use std::error::Error;
use std::fmt;

use crate::record::StateError;

/// What the daemon tried, and the cause of the failure.
#[derive(Debug)]
pub struct StartError {
    message: String,
    source: Box<dyn Error + Send + Sync>,
}

impl StartError {
    pub(super) fn new(message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { message, source: source.into() }
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
