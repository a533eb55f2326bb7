//! The sending side of a handover: the old daemon transfers its state, then drains its open requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use signal_hook::consts::SIGHUP;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::daemon::error::StartError;
use crate::daemon::handover::protocol::{HandoverMessage, MessageReader, describe};
use crate::daemon::handover::successor::Successor;
use crate::daemon::instance::{Draining, Instance};
use crate::daemon::listeners::Listeners;
use crate::daemon::predecessor::{Predecessor, ServiceChange};
use crate::daemon::services::{Proxies, ServiceHandles, longest_drain};
use crate::daemon::signals::{Signals, describe_sender};
use crate::proxy::{OPEN_REQUESTS_MAX, Proxy};
use crate::record::StateDir;
use crate::systemd::inherited_listeners::InheritedListeners;
use crate::systemd::notify;

/// Changes that are not sent yet.
const CHANGES_CAPACITY: usize = 1024;
/// How long the next daemon may take to become active.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to write the sessions to disk.
const SESSION_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the watchdog timer is reset meanwhile.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(500);
/// How often the routes of a resumed instance are applied to the draining proxies.
const ROUTES_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Added to the time limit of the drain.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// How the run of an instance ended.
pub(in crate::daemon) enum RunEnd {
    /// The daemon ends.
    Stopped,
    /// A handover failed: the resumed instance.
    Aborted(Box<Instance>),
}

/// The changes in the proxies, from now on.
type ChangeReceiver = mpsc::Receiver<ServiceChange>;

/// Hands over to a prepared daemon. If that one fails, this daemon kills it and resumes.
///
/// # Errors
/// When neither the next daemon nor this one can continue.
pub(in crate::daemon) async fn hand_over(
    mut instance: Instance,
    mut successor: Successor,
    requested_by: &str,
    settings: &Settings,
    signals: &mut Signals,
) -> Result<RunEnd, StartError> {
    let successor_name = describe(successor.pid, &successor.version);
    tracing::info!("handing over to {successor_name}");
    instance.stop_control_api();
    let reason = format!("{successor_name}, requested by {requested_by}");
    stop_service_loops(instance.handles(), &reason).await;
    instance.stop_notifier();
    let (changes_sender, mut changes) = mpsc::channel(CHANGES_CAPACITY);
    let transferred = tokio::select! {
        result = transfer_state(instance.proxies(), changes_sender, &mut changes, &mut successor) => result,
        never = keep_watchdog_alive() => never,
    };
    let Draining { proxies, predecessor } = instance.into_draining();
    let result = match transferred {
        Ok(()) => tokio::select! {
            result = release_state(&mut successor, &mut changes) => result,
            never = keep_watchdog_alive() => never,
        },
        Err(error) => Err(error),
    };
    let result = match result {
        Ok(()) => notify::set_main_pid(successor.pid).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!("handover to {successor_name} failed, resuming: {error}");
        return resume(successor, changes, proxies, predecessor, settings).await;
    }
    tracing::info!("{successor_name} took over; draining open requests");
    finish_open_requests(successor, changes, proxies, predecessor, settings, signals).await
}

/// Resets the watchdog timer again and again. Never returns.
async fn keep_watchdog_alive<T>() -> T {
    loop {
        notify::ping_watchdog().await;
        tokio::time::sleep(WATCHDOG_INTERVAL).await;
    }
}

/// Stops every service loop, between two decisions.
async fn stop_service_loops(handles: &ServiceHandles, successor: &str) {
    let mut pending = Vec::new();
    for handle in handles.values() {
        pending.extend(handle.hand_over(successor).await);
    }
    join_all(pending).await;
}

/// Closes the listeners, and sends the state of the proxies.
async fn transfer_state(
    proxies: &Proxies,
    changes_sender: mpsc::Sender<ServiceChange>,
    changes: &mut ChangeReceiver,
    successor: &mut Successor,
) -> Result<(), String> {
    let closed = join_all(proxies.values().map(|proxy| proxy.hand_over(changes_sender.clone())));
    let closed = tokio::time::timeout(SESSION_FLUSH_TIMEOUT, closed);
    let mut closed = std::pin::pin!(closed);
    loop {
        tokio::select! {
            closed = closed.as_mut() => {
                closed.map_err(|_| "sessions could not be written within 10 s")?;
                break;
            }
            Some((service, change)) = changes.recv() => send(successor, HandoverMessage::ProxyChange(service, change)).await?,
        }
    }
    while let Ok((service, change)) = changes.try_recv() {
        send(successor, HandoverMessage::ProxyChange(service, change)).await?;
    }
    Ok(())
}

async fn send(successor: &mut Successor, message: HandoverMessage) -> Result<(), String> {
    let sent = tokio::time::timeout(READY_TIMEOUT, successor.writer.send(&message)).await;
    match sent {
        Ok(sent) => sent.map_err(|error| format!("the successor is gone: {error}")),
        Err(_) => Err("the successor does not read".to_owned()),
    }
}

/// Releases the state, and waits until the successor is active.
async fn release_state(
    successor: &mut Successor,
    changes: &mut ChangeReceiver,
) -> Result<(), String> {
    send(successor, HandoverMessage::StateReleased).await?;
    let ready = async {
        loop {
            tokio::select! {
                message = successor.reader.next() => match message {
                    Ok(Some(HandoverMessage::Ready)) => return Ok(()),
                    Ok(Some(HandoverMessage::Failed(error))) => return Err(error),
                    Ok(Some(_)) => (),
                    Ok(None) => return Err("the successor ended".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Some((service, change)) = changes.recv() => {
                    let message = HandoverMessage::ProxyChange(service, change);
                    successor.writer.send(&message).await.map_err(|error| format!("the successor is gone: {error}"))?;
                }
            }
        }
    };
    let taken = tokio::time::timeout(READY_TIMEOUT, ready).await;
    taken.unwrap_or_else(|_| {
        Err(format!("the successor was not ready within {} s", READY_TIMEOUT.as_secs()))
    })
}

/// Resumes from disk, as a daemon does that starts.
async fn resume(
    successor: Successor,
    changes: ChangeReceiver,
    proxies: Proxies,
    predecessor: Option<Predecessor>,
    settings: &Settings,
) -> Result<RunEnd, StartError> {
    let failed =
        |source: String| StartError::new("cannot resume after a failed handover".into(), source);
    let listener_fds = successor.kill().await.map_err(failed)?;
    let inherited =
        InheritedListeners::try_from(listener_fds).map_err(|error| failed(error.to_string()))?;
    let state = StateDir::open(&settings.state_dir)?;
    let listeners = Listeners::open(settings, inherited)?;
    let cause = "rollbackd resumed after a failed handover";
    let mut instance = Instance::new(settings, state, listeners, cause)?;
    proxies.values().for_each(Proxy::resend_all);
    instance.set_predecessor(Predecessor::spawn(changes, Arc::clone(instance.proxies())));
    instance.start();
    // Before that, there are no routes to mirror.
    instance.wait_until_started().await;
    let (drain_timeout, new) = (longest_drain(settings), Arc::clone(instance.proxies()));
    tokio::spawn(async move {
        let never = CancellationToken::new();
        tokio::select! {
            () = stop_and_flush(&proxies, predecessor, drain_timeout, &never) => (),
            () = mirror_routes(&new, &proxies) => (),
        }
    });
    Ok(RunEnd::Aborted(Box::new(instance)))
}

/// Drains the open requests while the next daemon is active.
async fn finish_open_requests(
    successor: Successor,
    mut changes: ChangeReceiver,
    proxies: Proxies,
    predecessor: Option<Predecessor>,
    settings: &Settings,
    signals: &mut Signals,
) -> Result<RunEnd, StartError> {
    let Successor { reader, mut writer, .. } = successor;
    let stop_draining = CancellationToken::new();
    let drain_timeout = longest_drain(settings);
    let replicate = async {
        let mut sent = writer.send(&HandoverMessage::MainPidSet).await;
        while let Some((service, change)) = changes.recv().await {
            // Without a successor the drain goes on all the same.
            if sent.is_ok() {
                sent = writer.send(&HandoverMessage::ProxyChange(service, change)).await;
            }
        }
        sent.is_ok() && writer.send(&HandoverMessage::Done).await.is_ok()
    };
    let drain = async {
        tokio::join!(
            stop_and_flush(&proxies, predecessor, drain_timeout, &stop_draining),
            replicate
        )
        .1
    };
    let drain = tokio::time::timeout(drain_timeout.max(OPEN_REQUESTS_MAX) + DRAIN_MARGIN, drain);
    let mut drain = std::pin::pin!(drain);
    let mut routes = std::pin::pin!(apply_routes(reader, &proxies));
    let (mut successor_gone, mut signalled) = (false, false);
    let delivered = loop {
        tokio::select! {
            delivered = drain.as_mut() => break delivered.unwrap_or(!successor_gone),
            signal = signals.next(), if !signalled => if signal.as_ref().is_none_or(|it| it.signal != SIGHUP) {
                let sender = signal.as_ref().map_or_else(|| "an error".to_owned(), describe_sender);
                tracing::info!("stopping the drain early, requested by {sender}");
                signalled = true;
                stop_draining.cancel();
            },
            () = routes.as_mut(), if !successor_gone => successor_gone = true,
        }
    };
    if !delivered {
        // The service manager may still take this process for the main one: the error makes it restart.
        let what = "the daemon that took over is gone".to_owned();
        return Err(StartError::new(what, "its open requests have ended"));
    }
    tracing::info!("drain finished: no open requests");
    Ok(RunEnd::Stopped)
}

/// Applies the routes of the successor to the open requests here, until the successor is gone.
async fn apply_routes(mut reader: MessageReader, proxies: &Proxies) {
    while let Ok(Some(message)) = reader.next().await {
        if let HandoverMessage::RoutesChanged(service, routes) = message
            && let Some(proxy) = proxies.get(&service)
        {
            proxy.apply_routes(&routes).await;
        }
    }
}

/// The same after this daemon resumed: the routes are those of its new instance. Never returns.
async fn mirror_routes(new: &Proxies, old: &Proxies) {
    loop {
        for (service, proxy) in old.iter() {
            if let Some(routes) = new.get(service).and_then(Proxy::routes_snapshot) {
                proxy.apply_routes(&routes).await;
            }
        }
        tokio::time::sleep(ROUTES_POLL_INTERVAL).await;
    }
}

/// Drains all connections, and sends the last changes.
async fn stop_and_flush(
    proxies: &Proxies,
    predecessor: Option<Predecessor>,
    timeout: Duration,
    stop_draining: &CancellationToken,
) {
    join_all(proxies.values().map(|proxy| proxy.drain_connections(timeout, stop_draining))).await;
    if let Some(predecessor) = predecessor {
        tokio::select! {
            () = predecessor.wait_until_gone(timeout) => (),
            () = stop_draining.cancelled() => (),
        }
    }
    join_all(proxies.values().map(Proxy::stop_replicating)).await;
}
