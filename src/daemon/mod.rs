//! Puts the parts together and keeps them going until told to stop.
//!
//! Each service has a [`keeper`] with a loop of its own, in which all that happens to the service
//! happens in order. Around it, tasks that only carry: the proxy's connections, the [`crew`]'s
//! processes and probes, the [`desk`] where verbs ask. All that belongs to a daemon in charge is a
//! [`instance`]; it ends with the daemon, or with a [`handover`] to the next one.

mod control_api;
mod handover;
mod instance;
mod listeners;
mod metrics;
mod notifier;
mod reload;

use std::error::Error;
use std::fmt;
use std::path::Path;

use futures_util::StreamExt as _;
use handover::SuccessorStarting;
pub use handover::{Takeover, spawn_successor};
use listeners::Listeners;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook_tokio::Signals;

use crate::config::Settings;
use crate::daemon::instance::Instance;
use crate::record::{StateDir, StateError};
pub use crate::systemd::inherited_listeners::InheritedListeners;

/// Why the daemon can not start: what was tried, and what came of it.
#[derive(Debug)]
pub struct StartError {
    message: String,
    source: Box<dyn Error + Send + Sync>,
}

/// How a daemon begins.
#[derive(Debug)]
pub enum StartMode {
    /// By itself.
    Fresh(InheritedListeners),
    /// It takes over from one that runs.
    Takeover(Takeover),
}

/// How a reign ended.
enum RunEnd {
    /// For good.
    Stopped,
    /// It was given to the next daemon, which did not take it: it goes on.
    Aborted(Box<Instance>),
}

/// Runs the daemon until SIGTERM or SIGINT, or until another one took over, as SIGUSR2 asks for;
/// SIGHUP reads the configuration at `path` again.
///
/// # Errors
/// When something it needs is not to be had: the state folder, an address, the control socket; or
/// when the daemon that took over did not last.
pub async fn run(settings: Settings, path: &Path, mode: StartMode) -> Result<(), StartError> {
    raise_limits();
    handover::resolve_program_path();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2]);
    let mut signals =
        signals.map_err(|source| StartError::new("failed to listen for signals".into(), source))?;
    let mut instance = match mode {
        StartMode::Fresh(inherited) => {
            let state = StateDir::open(&settings.state_dir)?;
            let listeners = Listeners::open(&settings, inherited)?;
            let mut instance = Instance::new(&settings, state, listeners, "rollbackd started")?;
            // Only now, when nothing can fail any more, does anything happen.
            instance.start();
            instance
        }
        StartMode::Takeover(takeover) => takeover.take_over(&settings).await?,
    };
    let mut settings = settings;
    loop {
        instance.start_notifier(&settings);
        match run_until_signal(instance, &mut settings, path, &mut signals).await? {
            RunEnd::Stopped => return Ok(()),
            RunEnd::Aborted(resumed) => instance = *resumed,
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

async fn run_until_signal(
    instance: Instance,
    settings: &mut Settings,
    path: &Path,
    signals: &mut Signals,
) -> Result<RunEnd, StartError> {
    // The next daemon, while it makes sure that it can take over.
    let mut successor: Option<SuccessorStarting> = None;
    loop {
        let prepared = async {
            match &mut successor {
                Some(starting) => starting.wait().await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            signal = signals.next() => signal,
            prepared = prepared => match prepared {
                Ok(successor) => return handover::hand_over(instance, successor, settings, signals).await,
                Err(error) => {
                    tracing::error!("the next daemon does not take over, this one goes on: {error}");
                    successor = None;
                    continue;
                }
            },
        };
        match signal {
            Some(SIGHUP) => {
                notifier::reloading().await;
                *settings = reload::reload(settings.clone(), &instance.handles, path).await;
                notifier::reload_done().await;
                // The one that is on its way may have read the file before it was changed.
                successor = successor.map(|_| SuccessorStarting::spawn(&instance, settings, path));
            }
            Some(SIGUSR2) if successor.is_some() => tracing::info!("the next daemon is on its way"),
            Some(SIGUSR2) => successor = Some(SuccessorStarting::spawn(&instance, settings, path)),
            Some(signal) => {
                tracing::info!(signal, "stops");
                break;
            }
            None => break,
        }
    }
    drop(successor);
    instance.shut_down(settings).await;
    Ok(RunEnd::Stopped)
}

impl StartError {
    fn new(message: String, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { message, source: source.into() }
    }

    /// It and its causes, in one line.
    fn with_causes(&self) -> String {
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
        f.write_str(&self.message)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
