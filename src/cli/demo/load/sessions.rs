use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::caller::{Answer, Caller, LEGACY, Question};
use crate::model::Era;

/// Before a stream is opened again, and before a refused session is asked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Calls of a session that comes and goes.
const VISIT_CALLS: usize = 3;

/// A session that lives as long as the load, and is begun anew when its id is lost.
#[derive(Debug, Default)]
pub(super) struct Regular {
    open: Mutex<Option<Open>>,
    lost: Notify,
}

/// An open session: what the server calls it, and its number in the book.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    id: String,
    number: usize,
}

impl Regular {
    /// Whether there is a session to ask in.
    pub(super) fn is_open(&self) -> bool {
        self.current().is_some()
    }

    /// Asks in the session. Does nothing when it is being begun anew.
    pub(super) async fn ask(&self, caller: &Caller, question: Question) {
        let Some(open) = self.current() else { return };
        let answer = caller.ask(Era::Legacy, Some(&open.id), question).await;
        self.noted(caller, &open, answer);
    }

    fn noted(&self, caller: &Caller, open: &Open, answer: Answer) {
        if let Some(release) = answer.release {
            caller.book.session_seen(open.number, release);
        }
        if answer.lost {
            caller.book.session_broken(open.number);
            let mut current = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // A late 404 of the session before says nothing about this one.
            if current.as_ref() == Some(open) {
                *current = None;
                self.lost.notify_one();
            }
        }
    }

    fn current(&self) -> Option<Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Begins the session, again and again if need be, and holds its stream open.
pub(super) async fn keep(caller: Arc<Caller>, regular: Arc<Regular>) {
    loop {
        let Some(open) = regular.current() else {
            match begin(&caller).await {
                Some(open) => {
                    let mut current = regular.open.lock().unwrap_or_else(PoisonError::into_inner);
                    *current = Some(open);
                }
                None => sleep(AGAIN_AFTER).await,
            }
            continue;
        };
        tokio::select! {
            () = regular.lost.notified() => {}
            () = listen(&caller, &regular, &open) => sleep(AGAIN_AFTER).await,
        }
    }
}

/// A session that comes, makes its calls, and goes.
pub(super) async fn visit(caller: &Caller) {
    let Some(open) = begin(caller).await else { return };
    for turn in 0..VISIT_CALLS {
        let answer = caller.ask(Era::Legacy, Some(&open.id), Question::call(turn)).await;
        if let Some(release) = answer.release {
            caller.book.session_seen(open.number, release);
        }
        if answer.lost {
            caller.book.session_broken(open.number);
            return;
        }
    }
    if caller.tell(&open.id, Method::DELETE, None).await.lost {
        caller.book.session_broken(open.number);
    }
    caller.book.session_closed(open.number);
}

async fn begin(caller: &Caller) -> Option<Open> {
    let params = json!({
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": { "name": "rollbackd-demo", "version": "1" },
    });
    let question = Question { method: "initialize", params };
    let answer = caller.ask(Era::Legacy, None, question).await;
    let id = answer.session.filter(|_| answer.bad.is_none())?;
    let open = Open { id, number: caller.book.session() };
    let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    if caller.tell(&open.id, Method::POST, Some(initialized)).await.lost {
        caller.book.session_broken(open.number);
        return None;
    }
    Some(open)
}

/// Reads the stream of the session to its end. The end is no failure: a client opens it again.
async fn listen(caller: &Caller, regular: &Regular, open: &Open) {
    match caller.open(Some(&open.id), None).await {
        Ok((response, _)) => {
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
        }
        Err(answer) => regular.noted(caller, open, answer),
    }
}
