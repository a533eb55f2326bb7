//! Prints lines. A closed pipe is not an error: `println!` would panic.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::model::{escape_json, escape_unsafe};

/// Prints a line of the result.
pub(super) fn stdout_line(text: &str) {
    let _: io::Result<()> = writeln!(io::stdout().lock(), "{}", escape_lines(text));
}

/// Prints a line that is not part of the result.
pub(super) fn stderr_line(text: &str) {
    let _: io::Result<()> = writeln!(io::stderr().lock(), "{}", escape_lines(text));
}

/// Prints an error.
pub(super) fn error_line(text: &str) {
    stderr_line(&format!("rollbackd: {text}"));
}

/// Prints a result as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => stdout_line(&escape_json(text)),
        Err(problem) => error_line(&problem.to_string()),
    }
}

/// Escapes what is not safe to print, line by line: it may come from a release.
pub(super) fn escape_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(escape_unsafe).collect();
    lines.join("\n")
}
