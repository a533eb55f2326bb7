//! What verbs ask over the control socket, and what they are told.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::control::server::{self, Caller, Replies};
use crate::control::{self, Code, Request, Response, shown};
use crate::decide::Refusal;
use crate::model::{Actor, Command, Deploy, Entry, Fact, Guard, Number, Order, Slot};
use crate::record;

use super::input::{Input, Untaken};

/// Clients that are answered at once. As many more are told that there is no place.
const CALLERS_MAX: usize = 64;

/// How long the system may take to tell the groups of a user.
const LOOKUP_MAX: Duration = Duration::from_secs(5);

/// How often a client that waits is told how things stand.
const PROGRESS: Duration = Duration::from_secs(1);

/// How to reach the keeper of one service.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// What it takes in.
    pub inbox: mpsc::Sender<Input>,
    /// What it writes down.
    pub entries: broadcast::Sender<Arc<Entry>>,
    /// Where its timelines lie.
    pub dir: PathBuf,
}

/// The keepers, by service.
pub(super) type Handles = Arc<BTreeMap<String, Handle>>;

/// Serves the control socket for ever.
pub(super) async fn serve(listener: Arc<UnixListener>, handles: Handles) {
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    let doors = Arc::new(Semaphore::new(2 * CALLERS_MAX));
    loop {
        let door = Arc::clone(&doors).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (handles, places) = (Arc::clone(&handles), Arc::clone(&places));
        tokio::spawn(async move {
            // A client that left needs no answer.
            if let Ok(caller) = server::hear(stream).await {
                let _ = receive(caller, &handles, &places).await;
            }
            drop(door);
        });
    }
}

/// Answers a client while it is there; without a wait if there is no place for it.
async fn receive(
    caller: Caller,
    handles: &BTreeMap<String, Handle>,
    places: &Semaphore,
) -> io::Result<()> {
    let Caller { actor, request, mut replies, left } = caller;
    let Ok(_place) = places.try_acquire() else {
        let because =
            format!("busy: {CALLERS_MAX} clients are being answered; end those that follow");
        return replies.send(&refusal(Code::Busy, because)).await;
    };
    tokio::select! {
        answered = answer(actor, request, &mut replies, handles) => answered,
        () = left.seen() => Ok(()),
    }
}

async fn answer(
    actor: Actor,
    request: Result<Request, String>,
    replies: &mut Replies,
    handles: &BTreeMap<String, Handle>,
) -> io::Result<()> {
    let request = match request {
        Ok(request) => request,
        Err(why) => {
            let because = format!("the request makes no sense: {why}");
            return replies.send(&refusal(Code::Malformed, because)).await;
        }
    };
    if let Err(because) = allowed(&actor, &request).await {
        return replies.send(&refusal(Code::Forbidden, because)).await;
    }
    if let Request::Status { service: None } = request {
        for handle in handles.values() {
            status(handle, replies).await?;
        }
        return Ok(());
    }
    let name = request.service().unwrap_or_default();
    let Some(handle) = handles.get(name) else {
        let known: Vec<_> = handles.keys().map(String::as_str).collect();
        let because = no_service(name, &known);
        return replies.send(&refusal(Code::Unknown, because)).await;
    };
    match request {
        Request::Status { .. } => status(handle, replies).await,
        Request::Timeline { deploy, follow, .. } => timeline(handle, deploy, follow, replies).await,
        order => command(handle, order, actor, replies).await,
    }
}

/// Whoever could connect may look.
async fn allowed(actor: &Actor, request: &Request) -> Result<(), String> {
    if request.only_reads() {
        return Ok(());
    }
    let actor = actor.clone();
    let asked = tokio::task::spawn_blocking(move || control::may_act(&actor));
    match tokio::time::timeout(LOOKUP_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        _ => Err("the system's user database does not tell who you are; try as root".to_owned()),
    }
}

fn no_service(name: &str, known: &[&str]) -> String {
    let plain = !name.is_empty() && name.len() <= 60 && !name.contains(char::is_control);
    let name = if plain { name.to_owned() } else { shown(name) };
    format!("no service {name}; there are {}", known.join(", "))
}

async fn status(handle: &Handle, replies: &mut Replies) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    let asked = handle.inbox.send(Input::Status(tell)).await;
    match (asked, told.await) {
        (Ok(()), Ok(status)) => replies.send(&Response::Status(Box::new(status))).await,
        _ => replies.send(&stopping()).await,
    }
}

async fn timeline(
    handle: &Handle,
    deploy: Option<Number>,
    follow: bool,
    replies: &mut Replies,
) -> io::Result<()> {
    // Before the file is read, so that no line falls between.
    let mut coming = handle.entries.subscribe();
    let entries = match record::read(&handle.dir, deploy) {
        Ok(entries) => entries,
        Err(error) => return replies.send(&refusal(Code::Unknown, error.whole())).await,
    };
    let mut last = (Number(0), 0);
    for entry in entries {
        last = (entry.deploy, entry.seq);
        replies.send(&Response::Entry(Box::new(entry))).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        match coming.recv().await {
            Ok(entry) if last < (entry.deploy, entry.seq) => {
                if deploy.is_some_and(|deploy| deploy < entry.deploy) {
                    return Ok(());
                }
                last = (entry.deploy, entry.seq);
                replies.send(&Response::Entry(Box::new(Entry::clone(&entry)))).await?;
            }
            Ok(_) => (),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                let because = "too slow, lines were missed; follow again".to_owned();
                return replies.send(&refusal(Code::Failed, because)).await;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn command(
    handle: &Handle,
    request: Request,
    by: Actor,
    replies: &mut Replies,
) -> io::Result<()> {
    let mut coming = handle.entries.subscribe();
    let Some((command, wait)) = command_of(request) else {
        return replies.send(&refusal(Code::Malformed, "not a command".to_owned())).await;
    };
    let (tell, told) = oneshot::channel();
    let asked = handle.inbox.send(Input::Order(Order { by, command }, tell)).await;
    let first = match (asked, told.await) {
        (Ok(()), Ok(Ok(entry))) => entry,
        (Ok(()), Ok(Err(untaken))) => return replies.send(&untaken.into()).await,
        _ => return replies.send(&stopping()).await,
    };
    let (deploy, because) = (first.deploy, first.because.clone());
    replies.send(&Response::Accepted { deploy, because }).await?;
    if !wait {
        return Ok(());
    }
    replies.send(&Response::Entry(Box::new(Entry::clone(&first)))).await?;
    if ends(&first.fact) {
        return Ok(());
    }
    let mut last = first.seq;
    let mut progress = tokio::time::interval(PROGRESS);
    loop {
        let entry = tokio::select! {
            entry = coming.recv() => match entry {
                Ok(entry) => entry,
                Err(_) => return Ok(()),
            },
            _ = progress.tick() => {
                status(handle, replies).await?;
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
        replies.send(&Response::Entry(Box::new(Entry::clone(&entry)))).await?;
        if ends(&entry.fact) {
            return Ok(());
        }
    }
}

/// Whether nothing more follows from a command by itself.
fn ends(fact: &Fact) -> bool {
    // The bake goes on by itself when there is data again.
    let waits = matches!(fact, Fact::Blocked { guard: Guard::NoData, .. });
    !waits
        && matches!(
            fact,
            Fact::Accepted { .. }
                | Fact::Failed
                | Fact::Recovered
                | Fact::Unrecovered
                | Fact::Abandoned
                | Fact::Blocked { .. }
        )
}

fn command_of(request: Request) -> Option<(Command, bool)> {
    Some(match request {
        Request::Deploy { version, artifact, set, slot, freeze, force, strict, wait, .. } => {
            let (slot, digest) = (slot.map(Slot), None);
            let deploy = Deploy { version, artifact, digest, set, slot, freeze, force, strict };
            (Command::Deploy(deploy), wait)
        }
        Request::Rollback { cut, force, because, wait, .. } => {
            (Command::Rollback { cut, force, because }, wait)
        }
        Request::Hold { because, .. } => (Command::Hold { because }, false),
        Request::Resume { because, .. } => (Command::Resume { because }, false),
        Request::Status { .. } | Request::Timeline { .. } => return None,
    })
}

impl From<Untaken> for Response {
    fn from(untaken: Untaken) -> Self {
        match untaken {
            Untaken::Refused(refusal @ Refusal::Busy(_)) => {
                Self::Refused { code: Code::Busy, because: refusal.to_string() }
            }
            Untaken::Refused(refusal @ Refusal::Refused(_)) => {
                Self::Refused { code: Code::Refused, because: refusal.to_string() }
            }
            Untaken::Unfit(because) => {
                let because = format!("refused: {because}");
                Self::Refused { code: Code::Refused, because }
            }
            Untaken::Unwritten(because) => Self::Refused { code: Code::Failed, because },
        }
    }
}

fn refusal(code: Code, because: String) -> Response {
    Response::Refused { code, because }
}

fn stopping() -> Response {
    refusal(Code::Failed, "the daemon is stopping".to_owned())
}
