//! `rollbackd run`

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::daemon_options::config_path;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::terminal::Terminal;
use crate::daemon::{InheritedListeners, StartMode, Takeover};
use crate::record::{JournalLayer, PageLayer, StderrLog};
use crate::{config, daemon};

/// Run the daemon in the foreground.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Take over from the daemon at the other end of the standard input. Before 0.2.0 the flag was
    /// `--succeed`: an old daemon starts its successor with it.
    #[arg(long, hide = true, alias = "succeed")]
    takeover: bool,
}

impl Options {
    /// Takes the descriptors that this process inherited. Must run before any thread starts.
    pub(super) fn start_mode(&self) -> io::Result<StartMode> {
        match self.takeover {
            true => Takeover::from_stdin().map(StartMode::Takeover),
            false => InheritedListeners::from_environment().map(StartMode::Fresh),
        }
    }
}

/// Starts a daemon that takes over, and does not wait for it.
pub(super) fn spawn_successor(options: &Options, config: Option<PathBuf>) -> ExitCode {
    let path = config_path(options.file.as_deref(), config.as_deref());
    match daemon::spawn_successor(&path) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            output::error_line(&format!("cannot start the new daemon: {error}"));
            Exit::Failed.into()
        }
    }
}

pub(super) async fn run(
    options: Options,
    config: Option<PathBuf>,
    start_mode: io::Result<StartMode>,
) -> Exit {
    let stderr = match StderrLog::start() {
        Ok(stderr) => stderr,
        Err(error) => {
            output::error_line(&format!("cannot start the thread that writes the log: {error}"));
            return Exit::StartFailed;
        }
    };
    let path = config_path(options.file.as_deref(), config.as_deref());
    let exit = load_and_run(&options, &path, start_mode, &stderr).await;
    // From here to the end of the process nothing may wait for a reader of the log.
    stderr.flush();
    exit
}

async fn load_and_run(
    options: &Options,
    path: &Path,
    start_mode: io::Result<StartMode>,
    stderr: &StderrLog,
) -> Exit {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            stderr.line(&problems.to_string());
            stderr.line("rollbackd: the configuration has errors; the daemon did not start");
            if let Ok(StartMode::Takeover(takeover)) = start_mode {
                takeover.report_failure(&format!("the configuration has errors:\n{problems}"));
            }
            return Exit::InvalidConfig;
        }
    };
    let journald = start_log(stderr);
    if !loaded.warnings.is_empty() {
        tracing::warn!("configuration warnings:\n{}", loaded.warnings);
    }
    let start_mode = match start_mode {
        Ok(start_mode) => start_mode,
        Err(error) if options.takeover => {
            stderr.line(&format!(
                "rollbackd: cannot take over: no handover on the standard input: {error}"
            ));
            return Exit::StartFailed;
        }
        Err(error) => {
            tracing::error!(%error, "cannot use the inherited listeners; the daemon opens its own");
            StartMode::Fresh(InheritedListeners::default())
        }
    };
    let result = daemon::run(loaded.settings, path, start_mode).await;
    if let Some(journald) = journald {
        journald.flush();
    }
    match result {
        Ok(()) => Exit::Done,
        Err(error) => {
            let mut text = format!("rollbackd: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!("\n  caused by: {cause}"));
                source = cause.source();
            }
            stderr.line(&text);
            if error.had_started() { Exit::Failed } else { Exit::StartFailed }
        }
    }
}

/// Sends the log to the journal, if the standard error leads there, or else to the standard error.
/// A panic is logged, too: the default hook could wait for a reader of the standard error.
fn start_log(stderr: &StderrLog) -> Option<JournalLayer> {
    let journald = JournalLayer::connect();
    match &journald {
        Some(journald) => {
            tracing_subscriber::registry().with(journald.clone()).with(PageLayer).init();
        }
        None => {
            let layer = stderr.layer(Terminal::stderr().has_colour);
            let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
            registry.with(layer).with(PageLayer).init();
        }
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("a part of the daemon panicked, please report it: {panic}");
    }));
    journald
}
