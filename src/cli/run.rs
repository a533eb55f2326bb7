//! `rollbackd run`

use std::error::Error as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use crate::{config, daemon};

use super::exit::Exit;
use super::{CONFIG, say};

/// Run the daemon in the foreground.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) async fn run(options: Options, config: Option<PathBuf>) -> Exit {
    let path = options.file.or(config).unwrap_or_else(|| PathBuf::from(CONFIG));
    let checked = match config::load(&path) {
        Ok(checked) => checked,
        Err(problems) => {
            say::aside(&problems.to_string());
            say::error("the configuration has errors, nothing was started");
            return Exit::BadConfig;
        }
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    if !checked.warnings.is_empty() {
        tracing::warn!("the configuration is odd:\n{}", checked.warnings);
    }
    match daemon::run(checked.settings, &path).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!("\n  because: {cause}"));
                source = cause.source();
            }
            say::error(&text);
            Exit::NoStart
        }
    }
}
