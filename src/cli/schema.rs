//! `rollbackd schema`

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config;

/// Prints the JSON schema of the configuration.
pub(super) fn run() -> Exit {
    match serde_json::to_string_pretty(&config::schema()) {
        Ok(text) => {
            output::stdout_line(&text);
            Exit::Done
        }
        Err(error) => {
            output::error_line(&error.to_string());
            Exit::Failed
        }
    }
}
