//! `rollbackd run`

use std::error::Error as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::daemon::{Inherited, Origin, Taking};
use crate::record::Journald;
use crate::{config, daemon};

use super::exit::Exit;
use super::{CONFIG, say};

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
    pub(super) fn origin(&self) -> io::Result<Origin> {
        match self.succeed {
            true => Taking::begin().map(Origin::Heir),
            false => Inherited::take().map(Origin::Start),
        }
    }
}

/// Starts a daemon that takes over, and leaves it alone.
pub(super) fn succeed(options: &Options, config: Option<PathBuf>) -> ExitCode {
    let path = options.file.clone().or(config).unwrap_or_else(|| PathBuf::from(CONFIG));
    match daemon::succeed(&path) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            say::error(&format!("the next daemon can not be started: {error}"));
            Exit::Failed.into()
        }
    }
}

pub(super) async fn run(
    options: Options,
    config: Option<PathBuf>,
    origin: io::Result<Origin>,
) -> Exit {
    let path = options.file.or(config).unwrap_or_else(|| PathBuf::from(CONFIG));
    let checked = match config::load(&path) {
        Ok(checked) => checked,
        Err(problems) => {
            say::aside(&problems.to_string());
            say::error("the configuration has errors, nothing was started");
            if let Ok(Origin::Heir(taking)) = origin {
                taking.fail(&format!("the configuration has errors:\n{problems}"));
            }
            return Exit::BadConfig;
        }
    };
    let journald = Journald::connect();
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
    let origin = match origin {
        Ok(origin) => origin,
        Err(error) if options.succeed => {
            say::error(&format!("nothing is passed on over the standard input: {error}"));
            return Exit::NoStart;
        }
        Err(error) => {
            tracing::error!(%error, "the listeners that were passed on can not be used");
            Origin::Start(Inherited::default())
        }
    };
    let ended = daemon::run(checked.settings, &path, origin).await;
    if let Some(journald) = journald {
        journald.flush();
    }
    match ended {
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
