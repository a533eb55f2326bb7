//! Puts the parts together and keeps them going until told to stop.
//!
//! Each service has a [`keeper`] with a loop of its own, in which all that happens to the service
//! happens in order. Around it, tasks that only carry: the proxy's connections, the [`crew`]'s
//! processes and probes, the [`desk`] where verbs ask. All that belongs to a daemon in charge is a
//! [`reign`]; it ends with the daemon, or with a [`handover`] to the next one.

mod crew;
mod desk;
mod effects;
mod gauge;
mod handover;
mod herald;
mod inherited;
mod input;
mod keeper;
mod ledger;
mod leftovers;
mod listeners;
mod lives;
mod metrics;
mod orders;
mod pulse;
mod questions;
mod reign;
mod reload;
mod seals;
mod shadows;
mod status;
mod trials;
mod units;
mod uses;

use std::error::Error;
use std::fmt;
use std::path::Path;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook_tokio::Signals;

use crate::config::Settings;
use crate::record::{State, StateError};

use handover::Preparing;
use listeners::Listeners;
use reign::Reign;

pub use handover::{Taking, succeed};
pub use inherited::Inherited;

/// Why the daemon can not start: what was tried, and what came of it.
#[derive(Debug)]
pub struct StartError {
    what: String,
    source: Box<dyn Error + Send + Sync>,
}

/// How a daemon begins.
#[derive(Debug)]
pub enum Origin {
    /// By itself.
    Start(Inherited),
    /// It takes over from one that runs.
    Heir(Taking),
}

/// How a reign ended.
enum Outcome {
    /// For good.
    Over,
    /// It was given to the next daemon, which did not take it: it goes on.
    Back(Box<Reign>),
}

/// Runs the daemon until SIGTERM or SIGINT, or until another one took over, as SIGUSR2 asks for;
/// SIGHUP reads the configuration at `path` again.
///
/// # Errors
/// When something it needs is not to be had: the state folder, an address, the control socket; or
/// when the daemon that took over did not last.
pub async fn run(settings: Settings, path: &Path, origin: Origin) -> Result<(), StartError> {
    raise_limits();
    handover::remember();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2]);
    let mut signals =
        signals.map_err(|source| StartError::new("failed to listen for signals".into(), source))?;
    let mut reign = match origin {
        Origin::Start(inherited) => {
            let state = State::open(&settings.state_dir)?;
            let listeners = Listeners::open(&settings, inherited)?;
            let mut reign = Reign::new(&settings, state, listeners, "rollbackd started")?;
            // Only now, when nothing can fail any more, does anything happen.
            reign.open();
            reign
        }
        Origin::Heir(taking) => taking.take_over(&settings).await?,
    };
    let mut settings = settings;
    loop {
        reign.announce(&settings);
        match serve(reign, &mut settings, path, &mut signals).await? {
            Outcome::Over => return Ok(()),
            Outcome::Back(again) => reign = *again,
        }
    }
}

/// Each connection takes an open file; the usual soft limit of 1,024 is for programs that use
/// `select`. Where it can not be raised, fewer connections are served.
fn raise_limits() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "failed to raise the limit of open files");
    }
}

async fn serve(
    reign: Reign,
    settings: &mut Settings,
    path: &Path,
    signals: &mut Signals,
) -> Result<Outcome, StartError> {
    // The next daemon, while it makes sure that it can take over.
    let mut next: Option<Preparing> = None;
    loop {
        let prepared = async {
            match &mut next {
                Some(preparing) => preparing.done().await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            signal = signals.next() => signal,
            prepared = prepared => match prepared {
                Ok(heir) => return handover::give(reign, heir, settings, signals).await,
                Err(why) => {
                    tracing::error!("the next daemon does not take over, this one goes on: {why}");
                    next = None;
                    continue;
                }
            },
        };
        match signal {
            Some(SIGHUP) => {
                herald::reloading().await;
                *settings = reload::reload(settings.clone(), &reign.handles, path).await;
                herald::reloaded().await;
                // The one that is on its way may have read the file before it was changed.
                next = next.map(|_| Preparing::begin(&reign, settings, path));
            }
            Some(SIGUSR2) if next.is_some() => tracing::info!("the next daemon is on its way"),
            Some(SIGUSR2) => next = Some(Preparing::begin(&reign, settings, path)),
            Some(signal) => {
                tracing::info!(signal, "stops");
                break;
            }
            None => break,
        }
    }
    drop(next);
    reign.end(settings).await;
    Ok(Outcome::Over)
}

impl StartError {
    fn new(what: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what, source: source.into() }
    }

    /// It and its causes, in one line.
    fn whole(&self) -> String {
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
        Self::new("failed to use the state folder".to_owned(), error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
