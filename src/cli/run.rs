//! `rollbackd run`

use std::error::Error as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::DEFAULT_CONFIG_PATH;
use super::exit::Exit;
use crate::cli::output;
use crate::daemon::{InheritedListeners, StartMode, Takeover};
use crate::record::JournalLayer;
use crate::{config, daemon};

/// Run the daemon in the foreground.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take over from the daemon at the other end of the standard input.
    #[arg(long, hide = true)]
    succeed: bool,
}

impl Options {
    /// What was passed on to this process. Only before any thread is started.
    pub(super) fn start_mode(&self) -> io::Result<StartMode> {
        match self.succeed {
            true => Takeover::from_stdin().map(StartMode::Takeover),
            false => InheritedListeners::from_environment().map(StartMode::Fresh),
        }
    }
}

/// Starts a daemon that takes over, and leaves it alone.
pub(super) fn spawn_successor(options: &Options, config: Option<PathBuf>) -> ExitCode {
    let path =
        options.file.clone().or(config).unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG_PATH));
    match daemon::spawn_successor(&path) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            output::error_line(&format!("the next daemon can not be started: {error}"));
            Exit::Failed.into()
        }
    }
}

pub(super) async fn run(
    options: Options,
    config: Option<PathBuf>,
    start_mode: io::Result<StartMode>,
) -> Exit {
    let path = options.file.or(config).unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG_PATH));
    let checked = match config::load(&path) {
        Ok(checked) => checked,
        Err(problems) => {
            output::stderr_line(&problems.to_string());
            output::error_line("the configuration has errors, nothing was started");
            if let Ok(StartMode::Takeover(takeover)) = start_mode {
                takeover.report_failure(&format!("the configuration has errors:\n{problems}"));
            }
            return Exit::InvalidConfig;
        }
    };
    let journald = JournalLayer::connect();
    match &journald {
        Some(journald) => tracing_subscriber::registry().with(journald.clone()).init(),
        None => tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .init(),
    }
    if !checked.warnings.is_empty() {
        tracing::warn!("the configuration is odd:\n{}", checked.warnings);
    }
    let start_mode = match start_mode {
        Ok(origin) => origin,
        Err(error) if options.succeed => {
            output::error_line(&format!("nothing is passed on over the standard input: {error}"));
            return Exit::StartFailed;
        }
        Err(error) => {
            tracing::error!(%error, "the listeners that were passed on can not be used");
            StartMode::Fresh(InheritedListeners::default())
        }
    };
    let result = daemon::run(checked.settings, &path, start_mode).await;
    if let Some(journald) = journald {
        journald.flush();
    }
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!("\n  because: {cause}"));
                source = cause.source();
            }
            output::error_line(&text);
            Exit::StartFailed
        }
    }
}
