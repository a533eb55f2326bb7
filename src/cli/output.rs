//! Where the verbs print. A reader that went away is no reason to panic.

use std::io::{self, Write as _};

use serde::Serialize;

/// A line for the reader of the result.
pub(crate) fn stdout_line(text: &str) {
    let _: io::Result<()> = writeln!(io::stdout().lock(), "{text}");
}

/// A line for whoever looks on.
pub(crate) fn stderr_line(text: &str) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "{text}");
}

/// What went wrong.
pub(crate) fn error_line(text: &str) {
    stderr_line(&format!("rollbackd: {text}"));
}

/// A result for a script.
pub(crate) fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => stdout_line(&text),
        Err(problem) => error_line(&problem.to_string()),
    }
}
