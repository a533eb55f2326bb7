//! The daemon process: assembles the parts and runs them until a signal stops it.
//!
//! [`run`] opens the state and the listeners and makes an [`instance`]. Each service has a loop of its
//! own ([`crate::service`]), which handles all its events in order. Around the loops are tasks that
//! only transport: the proxy's connections, the [`control_api`], the [`metrics`], the [`notifier`].
//! An instance ends with the daemon, or with a [`handover`] to the next daemon.

mod client_places;
mod control_api;
mod error;
mod handover;
mod heartbeat;
mod incidents;
mod instance;
mod listeners;
mod metrics;
mod notifier;
mod predecessor;
mod reload;
mod reporting;
mod services;
mod signals;

use std::path::Path;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGUSR2};

use crate::config::Settings;
use crate::control::ReloadReport;
use crate::critical;
pub use crate::daemon::error::StartError;
use crate::daemon::handover::{RunEnd, SuccessorStarting};
pub use crate::daemon::handover::{Takeover, spawn_successor};
use crate::daemon::instance::Instance;
use crate::daemon::listeners::Listeners;
use crate::daemon::reload::ReloadRequest;
use crate::daemon::signals::{Signals, describe_sender};
use crate::open_files::FileBudget;
use crate::record::StateDir;
pub use crate::systemd::inherited_listeners::InheritedListeners;
use crate::systemd::notify;

/// How a daemon starts.
#[derive(Debug)]
pub enum StartMode {
    /// No other daemon runs.
    Fresh(InheritedListeners),
    /// It takes over from a running daemon.
    Takeover(Takeover),
}

/// Runs the daemon until SIGTERM or SIGINT, or until it has handed over to another daemon, as SIGUSR2
/// requests. SIGHUP reloads the configuration at `path`.
///
/// # Errors
/// When the state directory, an address, or the control socket is not available; or when the daemon that
/// took over ended too early.
pub async fn run(settings: Settings, path: &Path, mode: StartMode) -> Result<(), StartError> {
    limit_connections(&settings, raise_file_limit());
    handover::resolve_program_path();
    let mut signals = signals::listen()
        .map_err(|source| StartError::new("cannot handle signals".into(), source))?;
    let mut instance = match mode {
        StartMode::Fresh(inherited) => {
            let state = StateDir::open(&settings.state_dir)?;
            let listeners = Listeners::open(&settings, inherited)?;
            let mut instance = Instance::new(&settings, state, listeners, "rollbackd started")?;
            // Nothing before this has an effect, and nothing after it can fail.
            instance.start();
            instance
        }
        StartMode::Takeover(takeover) => takeover.take_over(&settings).await?,
    };
    let mut settings = settings;
    loop {
        instance.start_notifier(&settings).await;
        let run = run_until_signal(instance, &mut settings, path, &mut signals);
        match unless_a_part_fails(run).await? {
            RunEnd::Stopped => return Ok(()),
            RunEnd::Aborted(resumed) => instance = *resumed,
        }
    }
}

/// Runs until the end, or until a part fails without which the daemon only looks alive. Releases go on;
/// the next daemon adopts them.
async fn unless_a_part_fails(
    run: impl Future<Output = Result<RunEnd, StartError>>,
) -> Result<RunEnd, StartError> {
    tokio::select! {
        end = run => end,
        reason = critical::wait_failure() => {
            tracing::error!(page = true, "{reason}: the daemon ends, to be started again");
            Err(StartError::part_failed(reason))
        }
    }
}

/// Each connection takes an open file. The usual soft limit of 1,024 is for programs that use
/// `select`. Where the limit cannot be raised, fewer connections fit.
fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current
}

/// Shares the limit of open files out; without one there is nothing to share.
fn limit_connections(settings: &Settings, limit: Option<u64>) {
    let Some(limit) = limit else { return };
    let budget = FileBudget::of(limit);
    budget.apply();
    let FileBudget { reserve, connections } = budget;
    let wanted = settings.services.values().map(|it| it.limits.connections_max);
    let wanted = wanted.fold(0, usize::saturating_add);
    let text = format!(
        "the limit of open files is {limit}: at most {connections} client connections, as many \
         connections to releases, seven eighths of them for one address, and a reserve of {reserve}"
    );
    if u64::try_from(wanted).is_ok_and(|wanted| wanted <= connections) {
        tracing::info!("{text}");
    } else {
        tracing::warn!("{text}. limits.connections allows {wanted}: raise LimitNOFILE");
    }
}

/// Reloads the configuration, and tells the service manager meanwhile.
async fn reload(
    instance: &Instance,
    settings: &mut Settings,
    path: &Path,
    by: &str,
) -> Result<ReloadReport, String> {
    tracing::info!("reloading the configuration, requested by {by}");
    notify::reloading().await;
    let report = reload::reload(settings, instance.handles(), path).await;
    if report.is_ok() {
        instance.incidents().configure(settings);
    }
    notify::reload_done().await;
    report
}

/// The successor may have read the file before the change.
fn restart_successor(
    successor: Option<(SuccessorStarting, String)>,
    instance: &Instance,
    settings: &Settings,
    path: &Path,
) -> Option<(SuccessorStarting, String)> {
    successor.map(|(_, by)| (SuccessorStarting::spawn(instance, settings, path), by))
}

async fn run_until_signal(
    mut instance: Instance,
    settings: &mut Settings,
    path: &Path,
    signals: &mut Signals,
) -> Result<RunEnd, StartError> {
    // The next daemon while it prepares, and who requested the handover.
    let mut successor: Option<(SuccessorStarting, String)> = None;
    loop {
        let prepared = async {
            match &mut successor {
                Some((starting, requested_by)) => (starting.wait().await, requested_by.clone()),
                None => std::future::pending().await,
            }
        };
        let origin = tokio::select! {
            origin = signals.next() => origin,
            request = instance.next_reload() => {
                let ReloadRequest { by, reply } = request;
                let report = reload(&instance, settings, path, &by).await;
                let _ = reply.send(report);
                successor = restart_successor(successor, &instance, settings, path);
                continue;
            }
            (prepared, requested_by) = prepared => match prepared {
                Ok(successor) => {
                    return handover::hand_over(instance, successor, &requested_by, settings, signals).await;
                }
                Err(error) => {
                    tracing::error!("handover failed, this daemon continues: {error}");
                    successor = None;
                    continue;
                }
            },
        };
        let Some(origin) = origin else { break };
        let sender = describe_sender(&origin);
        match origin.signal {
            SIGHUP => {
                // The log has what became of it.
                let _ = reload(&instance, settings, path, &sender).await;
                successor = restart_successor(successor, &instance, settings, path);
            }
            SIGUSR2 if successor.is_some() => {
                tracing::info!("a handover is already in progress, requested again by {sender}");
            }
            SIGUSR2 => {
                tracing::info!("starting the next daemon for a handover, requested by {sender}");
                successor = Some((SuccessorStarting::spawn(&instance, settings, path), sender));
            }
            signal => {
                tracing::info!(signal, "stopped by {sender}");
                break;
            }
        }
    }
    drop(successor);
    instance.shut_down(settings).await;
    Ok(RunEnd::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_loop_that_panics_ends_the_daemon() {
        let text = include_str!("../../config.toml.example");
        let mut settings = config::parse("config.toml.example", text).unwrap().settings;
        let dir = tempfile::tempdir().unwrap();
        settings.state_dir = dir.path().join("state");
        settings.control_socket = dir.path().join("control.sock");
        settings.metrics = None;
        settings.services.values_mut().for_each(|it| it.listen = ([127, 0, 0, 1], 0).into());
        let state = StateDir::open(&settings.state_dir).unwrap();
        let listeners = Listeners::open(&settings, InheritedListeners::default()).unwrap();
        let mut instance = Instance::new(&settings, state, listeners, "test").unwrap();
        instance.start();
        instance.wait_until_started().await;
        let (name, handle) = instance.handles().iter().next().unwrap();
        assert!(handle.status().await.is_some());
        handle.inject_panic().await;
        let end = unless_a_part_fails(std::future::pending()).await;
        let error = end.err().unwrap();
        let expected = format!("the loop of service {name} panicked: injected");
        assert!(error.with_causes().contains(&expected), "{}", error.with_causes());
        assert!(error.had_started());
    }
}
