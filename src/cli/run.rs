//! `rollbackd run`

use std::error::Error as _;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::daemon::Inherited;
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
}

pub(super) async fn run(
    options: Options,
    config: Option<PathBuf>,
    inherited: io::Result<Inherited>,
) -> Exit {
    let path = options.file.or(config).unwrap_or_else(|| PathBuf::from(CONFIG));
    let checked = match config::load(&path) {
        Ok(checked) => checked,
        Err(problems) => {
            say::aside(&problems.to_string());
            say::error("the configuration has errors, nothing was started");
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
    let inherited = inherited.unwrap_or_else(|error| {
        tracing::error!(%error, "the listeners that were passed on can not be used");
        Inherited::default()
    });
    let ended = daemon::run(checked.settings, &path, inherited).await;
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
