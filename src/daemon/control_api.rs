//! The server of the control API: requests of the command line over the control socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinSet;

use crate::control::server::{IncomingRequest, ReplyWriter};
use crate::control::{RefusalCode, Request, Response, server, unknown_service};
use crate::daemon::client_places::{ClientPlace, ClientPlaces};
use crate::daemon::reload::ReloadRequest;
use crate::daemon::reporting::Services;
use crate::decide::CommandRefused;
use crate::model::{Actor, Command, CommandRequest, ReleaseNumber, TimelineEntry};
use crate::service::handle::ServiceHandle;
use crate::service::inbox::CommandError;
use crate::{control, record};

/// How long the system may take to look up the groups of a user.
const GROUP_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a waiting client receives the status.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Wait after a failure to accept, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Serves the control socket until the task is aborted. Then all connections end: their clients find the
/// next daemon.
pub(super) async fn serve(listener: Arc<UnixListener>, services: Services) {
    let places = Arc::new(ClientPlaces::default());
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = clients.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        // Places are counted by user: a flood by one user does not keep the others out.
        let Some(place) = stream.peer_cred().ok().and_then(|peer| places.enter(peer.uid())) else {
            continue;
        };
        let services = services.clone();
        clients.spawn(async move {
            // An error means that the client disconnected.
            if let Ok(client) = server::accept_request(stream).await {
                let _ = handle_client(client, &services, &place).await;
            }
        });
    }
}

/// Serves a client until it disconnects. Replies "busy" where its user has too many connections.
async fn handle_client(
    client: IncomingRequest,
    services: &Services,
    place: &ClientPlace,
) -> io::Result<()> {
    let IncomingRequest { actor, request, reply_writer: mut replies, disconnect } = client;
    if let Some(max) = place.refused_above() {
        let because = format!("busy: {max} clients are connected; end one that uses --follow");
        return replies.send(&Response::refused(RefusalCode::Busy, because)).await;
    }
    tokio::select! {
        answered = handle_request(actor, request, &mut replies, services) => answered,
        () = disconnect.wait() => Ok(()),
    }
}

async fn handle_request(
    actor: Actor,
    request: Result<Request, String>,
    replies: &mut ReplyWriter,
    services: &Services,
) -> io::Result<()> {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            let because = format!("invalid request: {error}");
            return replies.send(&Response::refused(RefusalCode::Malformed, because)).await;
        }
    };
    let actor = match authorize(actor, &request).await {
        Ok(actor) => actor,
        Err(because) => {
            return replies.send(&Response::refused(RefusalCode::Forbidden, because)).await;
        }
    };
    let handles = &services.handles;
    if let Request::Incident { request } = request {
        return services.incidents.answer(&actor, request, handles, replies).await;
    }
    if let Request::NotifyTest { channel } = request {
        return test_channels(services, channel.as_deref(), replies).await;
    }
    if matches!(request, Request::Reload {}) {
        return reload(services, &actor, replies).await;
    }
    if let Request::Status { service: None } = request {
        for handle in handles.values() {
            status(services, handle, replies).await?;
        }
        return Ok(());
    }
    let name = request.service().unwrap_or_default();
    let Some(handle) = handles.get(name) else {
        let known: Vec<_> = handles.keys().map(String::as_str).collect();
        let because = unknown_service(name, &known);
        return replies.send(&Response::refused(RefusalCode::NotFound, because)).await;
    };
    match request {
        Request::Status { .. } => status(services, handle, replies).await,
        Request::Explain { .. } => explain(services, handle, replies).await,
        Request::Timeline { deploy, follow, .. } => timeline(handle, deploy, follow, replies).await,
        order => command(services, handle, order, actor, replies).await,
    }
}

/// A client that can connect may read. Commands need more; who gives one is known by name.
async fn authorize(actor: Actor, request: &Request) -> Result<Actor, String> {
    if request.is_read_only() {
        return Ok(actor);
    }
    let check = tokio::task::spawn_blocking(move || {
        control::authorize(&actor).and_then(|()| control::ensure_not_a_release(&actor))?;
        Ok(control::with_user_name(actor))
    });
    match tokio::time::timeout(GROUP_LOOKUP_TIMEOUT, check).await {
        Ok(Ok(answer)) => answer,
        _ => Err("the system's user database does not answer within 5 s; try as root".to_owned()),
    }
}

async fn status(
    services: &Services,
    handle: &ServiceHandle,
    replies: &mut ReplyWriter,
) -> io::Result<()> {
    match services.status(handle).await {
        Some(status) => replies.send(&Response::Status(Box::new(status))).await,
        None => replies.send(&stopping()).await,
    }
}

async fn explain(
    services: &Services,
    handle: &ServiceHandle,
    replies: &mut ReplyWriter,
) -> io::Result<()> {
    match services.explain(handle).await {
        Some(explanation) => replies.send(&Response::Explanation { explanation }).await,
        None => replies.send(&stopping()).await,
    }
}

/// The task that owns the settings reloads them, and reports each.
async fn reload(services: &Services, by: &Actor, replies: &mut ReplyWriter) -> io::Result<()> {
    let (reply, answer) = oneshot::channel();
    let request = ReloadRequest { by: by.to_string(), reply };
    if services.reloads.send(request).await.is_err() {
        return replies.send(&stopping()).await;
    }
    match answer.await {
        Ok(Ok(report)) => replies.send(&Response::Reloaded { report }).await,
        Ok(Err(problems)) => {
            let because = format!("the configuration has errors, nothing changed:\n{problems}");
            replies.send(&Response::refused(RefusalCode::InvalidConfig, because)).await
        }
        Err(_) => replies.send(&stopping()).await,
    }
}

/// Sends an example over the channels, and tells what came back from each.
async fn test_channels(
    services: &Services,
    channel: Option<&str>,
    replies: &mut ReplyWriter,
) -> io::Result<()> {
    let notifier = services.incidents.notifier();
    let results = notifier.test(channel).await.unwrap_or_default();
    if results.is_empty() {
        let because = match channel {
            Some(name) => format!("no channel {}; write [notify.NAME]", control::printable(name)),
            None => {
                "no channel is configured; write [notify.NAME], see rollbackd.toml(5)".to_owned()
            }
        };
        return replies.send(&Response::refused(RefusalCode::NotFound, because)).await;
    }
    for (channel, result) in results {
        let (ok, because) = match result {
            Ok(answer) => (true, answer),
            Err(because) => (false, because),
        };
        replies.send(&Response::Notified { channel, ok, because }).await?;
    }
    Ok(())
}

async fn timeline(
    handle: &ServiceHandle,
    deploy: Option<ReleaseNumber>,
    follow: bool,
    replies: &mut ReplyWriter,
) -> io::Result<()> {
    // Before it reads the file, so that no entry is missed between.
    let mut new_entries = handle.subscribe();
    let dir = handle.dir().to_owned();
    let read = tokio::task::spawn_blocking(move || record::read_deploy(&dir, deploy));
    let entries = match read.await {
        Ok(Ok(entries)) => entries,
        Err(error) => {
            return replies.send(&Response::refused(RefusalCode::Failed, error.to_string())).await;
        }
        Ok(Err(error)) => {
            return replies
                .send(&Response::refused(RefusalCode::NotFound, error.with_cause()))
                .await;
        }
    };
    let mut last = (ReleaseNumber(0), 0);
    for entry in entries {
        last = (entry.deploy, entry.seq);
        replies.send(&Response::Event(Box::new(entry))).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        match new_entries.recv().await {
            Ok(entry) if last < (entry.deploy, entry.seq) => {
                if deploy.is_some_and(|deploy| deploy < entry.deploy) {
                    return Ok(());
                }
                last = (entry.deploy, entry.seq);
                replies.send(&Response::Event(Box::new(TimelineEntry::clone(&entry)))).await?;
            }
            Ok(_) => (),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let because = "the client is too slow and missed entries; follow again".to_owned();
                return replies.send(&Response::refused(RefusalCode::Failed, because)).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn command(
    services: &Services,
    handle: &ServiceHandle,
    request: Request,
    by: Actor,
    replies: &mut ReplyWriter,
) -> io::Result<()> {
    let mut new_entries = handle.subscribe();
    if let Request::Deploy(deploy) = &request {
        match services.incidents.review_before_deploy(&deploy.service, deploy.force) {
            Ok(warnings) => {
                for because in warnings {
                    replies.send(&Response::Warning { because }).await?;
                }
            }
            Err(because) => {
                return replies.send(&Response::refused(RefusalCode::Refused, because)).await;
            }
        }
    }
    let Some(AcceptedCommand { command, wait }) = into_command(request) else {
        return replies
            .send(&Response::refused(RefusalCode::Malformed, "not a command".to_owned()))
            .await;
    };
    let first = match handle.command(CommandRequest { by, command }).await {
        Some(Ok(entry)) => entry,
        Some(Err(error)) => return replies.send(&error.into()).await,
        None => return replies.send(&stopping()).await,
    };
    let (deploy, because) = (first.deploy, first.because.clone());
    replies.send(&Response::Accepted { deploy, because }).await?;
    if !wait {
        return Ok(());
    }
    replies.send(&Response::Event(Box::new(TimelineEntry::clone(&first)))).await?;
    if first.event.completes_command() {
        return Ok(());
    }
    let mut last = first.seq;
    let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
    loop {
        let entry = tokio::select! {
            entry = new_entries.recv() => match entry {
                Ok(entry) => entry,
                Err(_) => return Ok(()),
            },
            _ = progress.tick() => {
                status(services, handle, replies).await?;
                continue;
            }
        };
        if entry.deploy != deploy {
            return Ok(());
        }
        if entry.seq <= last {
            continue;
        }
        last = entry.seq;
        replies.send(&Response::Event(Box::new(TimelineEntry::clone(&entry)))).await?;
        if entry.event.completes_command() {
            return Ok(());
        }
    }
}

/// A command, and whether its client waits for the end.
struct AcceptedCommand {
    command: Command,
    wait: bool,
}

fn into_command(request: Request) -> Option<AcceptedCommand> {
    let (command, wait) = match request {
        Request::Deploy(deploy) => {
            let wait = deploy.wait;
            (Command::Deploy(deploy), wait)
        }
        Request::Rollback { cut, force, because, wait, .. } => {
            (Command::Rollback { cut, force, because }, wait)
        }
        Request::Promote { because, .. } => (Command::Promote { because }, false),
        Request::Hold { because, .. } => (Command::Hold { because }, false),
        Request::Resume { because, .. } => (Command::Resume { because }, false),
        Request::Status { .. }
        | Request::Explain { .. }
        | Request::Reload {}
        | Request::Timeline { .. }
        | Request::NotifyTest { .. }
        | Request::Incident { .. } => return None,
    };
    Some(AcceptedCommand { command, wait })
}

impl From<CommandError> for Response {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(refusal @ CommandRefused::Busy(_)) => {
                Self::refused(RefusalCode::Busy, refusal.to_string())
            }
            CommandError::Refused(refusal @ CommandRefused::Refused(_)) => {
                Self::refused(RefusalCode::Refused, refusal.to_string())
            }
            CommandError::Refused(refusal @ CommandRefused::Waivable(waiver, _)) => {
                let (code, because) = (RefusalCode::Refused, refusal.to_string());
                Self::Refused { code, because, waiver: Some(waiver) }
            }
            CommandError::Refused(CommandRefused::Unchanged(deploy, because)) => {
                Self::Unchanged { deploy, because }
            }
            CommandError::ArtifactUnusable(because) => {
                Self::refused(RefusalCode::Refused, format!("refused: {because}"))
            }
            CommandError::NotRecorded(because) => Self::refused(RefusalCode::Failed, because),
        }
    }
}

fn stopping() -> Response {
    Response::refused(RefusalCode::Failed, "the daemon is stopping".to_owned())
}
