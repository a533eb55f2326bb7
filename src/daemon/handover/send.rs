//! The old daemon gives all it has to the next one, and ends what is open in it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use signal_hook::consts::SIGHUP;
use signal_hook_tokio::Signals;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::daemon::control_api::ServiceHandles;
use crate::daemon::handover::describe;
use crate::daemon::handover::protocol::{HandoverMessage, MessageReader};
use crate::daemon::handover::receive::Predecessor;
use crate::daemon::handover::successor::Successor;
use crate::daemon::instance::{Instance, Proxies, longest_drain};
use crate::daemon::listeners::Listeners;
use crate::daemon::{RunEnd, StartError, notifier};
use crate::proxy::{Proxy, ReplicationMessage};
use crate::record::StateDir;
use crate::service::inbox::ServiceMessage;
use crate::systemd::inherited_listeners::InheritedListeners;

/// Changes that are not sent yet.
const CHANGES_CAPACITY: usize = 1024;
/// How long the next daemon may take to take up what it is given.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sessions may take to be on disk.
const SESSION_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the watchdog is fed meanwhile.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is looked whether requests go elsewhere.
const ROUTES_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the end of what is open may take beyond the time it is given.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// What changes in the proxies from now on, by service.
type ChangeReceiver = mpsc::Receiver<(String, ReplicationMessage)>;

/// Hands over to a daemon that is prepared. One that does not take it is killed, and the state is
/// taken back.
///
/// # Errors
/// When neither the next daemon nor this one can go on.
pub(in crate::daemon) async fn hand_over(
    mut instance: Instance,
    mut successor: Successor,
    settings: &Settings,
    signals: &mut Signals,
) -> Result<RunEnd, StartError> {
    let successor_name = describe(successor.pid, &successor.version);
    tracing::info!("hands over to {successor_name}");
    instance.stop_control_api();
    stop_service_loops(&instance.handles, &successor_name).await;
    instance.stop_notifier();
    let (changes_sender, mut changes) = mpsc::channel(CHANGES_CAPACITY);
    let transferred = tokio::select! {
        given = transfer_state(&instance.proxies, changes_sender, &mut changes, &mut successor) => given,
        never = keep_watchdog_alive() => never,
    };
    let Instance { state, proxies, predecessor, .. } = instance;
    drop(state);
    let result = match transferred {
        Ok(()) => tokio::select! {
            taken = release_state(&mut successor, &mut changes) => taken,
            never = keep_watchdog_alive() => never,
        },
        Err(error) => Err(error),
    };
    let result = match result {
        Ok(()) => notifier::set_main_pid(successor.pid).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::error!("{successor_name} did not take over, this one takes it back: {error}");
        return resume(successor, changes, proxies, predecessor, settings).await;
    }
    tracing::info!("{successor_name} took over; what is open here may finish");
    finish_open_requests(successor, changes, proxies, predecessor, settings, signals).await
}

/// Feeds the watchdog. Never returns.
async fn keep_watchdog_alive<T>() -> T {
    loop {
        notifier::ping_watchdog().await;
        tokio::time::sleep(WATCHDOG_INTERVAL).await;
    }
}

/// Every keeper stops, between two decisions.
async fn stop_service_loops(handles: &ServiceHandles, successor: &str) {
    let mut pending = Vec::new();
    for handle in handles.values() {
        let (released, release_confirmed) = oneshot::channel();
        if handle.inbox.send(ServiceMessage::HandOver(successor.to_owned(), released)).await.is_ok()
        {
            pending.push(release_confirmed);
        }
    }
    join_all(pending).await;
}

/// Lets nobody in any more, and tells how things stand in the proxies.
async fn transfer_state(
    proxies: &Proxies,
    changes_sender: mpsc::Sender<(String, ReplicationMessage)>,
    changes: &mut ChangeReceiver,
    successor: &mut Successor,
) -> Result<(), String> {
    let closed = join_all(proxies.values().map(|proxy| proxy.hand_over(changes_sender.clone())));
    let closed = tokio::time::timeout(SESSION_FLUSH_TIMEOUT, closed);
    let mut closed = std::pin::pin!(closed);
    loop {
        tokio::select! {
            closed = closed.as_mut() => {
                closed.map_err(|_| "sessions could not be written in time")?;
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
        Ok(said) => said.map_err(|error| format!("it is gone: {error}")),
        Err(_) => Err("it does not listen".to_owned()),
    }
}

/// The state is the next one's; waits until it says that it is in charge.
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
                    Ok(None) => return Err("it ended".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Some((service, change)) = changes.recv() => {
                    let word = HandoverMessage::ProxyChange(service, change);
                    successor.writer.send(&word).await.map_err(|error| format!("it is gone: {error}"))?;
                }
            }
        }
    };
    let taken = tokio::time::timeout(READY_TIMEOUT, ready).await;
    taken.unwrap_or_else(|_| Err(format!("not ready within {} s", READY_TIMEOUT.as_secs())))
}

/// Takes the state up again, as a daemon that starts would.
async fn resume(
    successor: Successor,
    changes: ChangeReceiver,
    proxies: Proxies,
    predecessor: Option<Predecessor>,
    settings: &Settings,
) -> Result<RunEnd, StartError> {
    let failed = |source: String| StartError::new("failed to take the state back".into(), source);
    let listener_fds = successor.kill().await.map_err(failed)?;
    let inherited =
        InheritedListeners::try_from(listener_fds).map_err(|error| failed(error.to_string()))?;
    let state = StateDir::open(&settings.state_dir)?;
    let listeners = Listeners::open(settings, inherited)?;
    let cause = "rollbackd took it back, since the next one failed,";
    let mut instance = Instance::new(settings, state, listeners, cause)?;
    proxies.values().for_each(Proxy::resend_all);
    instance.predecessor = Some(Predecessor::spawn(changes, Arc::clone(&instance.proxies)));
    instance.start();
    // Before that, there are no ways to follow.
    instance.wait_until_started().await;
    let (drain_timeout, new) = (longest_drain(settings), Arc::clone(&instance.proxies));
    tokio::spawn(async move {
        let never = CancellationToken::new();
        tokio::select! {
            () = stop_and_flush(&proxies, predecessor, drain_timeout, &never) => (),
            () = mirror_routes(&new, &proxies) => (),
        }
    });
    Ok(RunEnd::Aborted(Box::new(instance)))
}

/// Ends what is open here, while the next daemon is in charge.
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
            // One that is gone is not told; what is open goes on all the same.
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
    let drain = tokio::time::timeout(drain_timeout + DRAIN_MARGIN, drain);
    let mut drain = std::pin::pin!(drain);
    let mut routes = std::pin::pin!(apply_routes(reader, &proxies));
    let (mut successor_gone, mut signalled) = (false, false);
    let delivered = loop {
        tokio::select! {
            delivered = drain.as_mut() => break delivered.unwrap_or(!successor_gone),
            signal = signals.next(), if !signalled => if signal != Some(SIGHUP) {
                tracing::info!("ends soon");
                signalled = true;
                stop_draining.cancel();
            },
            () = routes.as_mut(), if !successor_gone => successor_gone = true,
        }
    };
    if !delivered {
        // If the service manager did not hear of it, it still takes this process for the main one.
        let what = "the daemon that took over is gone".to_owned();
        return Err(StartError::new(what, "what was open here has ended"));
    }
    tracing::info!("nothing is open here any more");
    Ok(RunEnd::Stopped)
}

/// What is open here leaves a release as it does in the daemon that took over, until that is gone.
async fn apply_routes(mut reader: MessageReader, proxies: &Proxies) {
    while let Ok(Some(word)) = reader.next().await {
        if let HandoverMessage::RoutesChanged(service, routes) = word
            && let Some(proxy) = proxies.get(&service)
        {
            proxy.apply_routes(&routes).await;
        }
    }
}

/// The same, where this daemon itself took the state back. Never returns.
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

/// Lets those go who are in, and tells the last of it.
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
