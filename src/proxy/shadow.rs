//! Shadow calls: what failed on one release, asked once more of another, for nobody but the judge.
//!
//! If it fails there too, the new release is not to blame. The client never sees an answer of it,
//! nor does the other release's record: no outcome is counted, no session is known, nothing waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::mcp::{Answered, Said, session_lost};
use crate::model::{Class, Number};

use super::message::{Message, same_id};
use super::repeat::Repeat;
use super::scan::Scan;
use super::sse::Events;
use super::upload::Upload;
use super::upstream::Upstream;
use super::{Proxy, classify, headers};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Bytes of a refusal that are read.
const REFUSAL_MAX: usize = 64 * 1024;
/// What a client speaks that does not say it.
const UNSAID: HeaderValue = HeaderValue::from_static("2025-03-26");

impl Proxy {
    /// Keeps what fails on `from` and is safe to repeat, and repeats up to `count` of it on `to`
    /// now, in turn. At most 32 repeats are in flight; what would be more is not sent. To be called
    /// within a tokio runtime.
    pub fn shadow(&self, from: Number, to: Number, count: u32) {
        let routes = self.front.routes.load();
        let (Some(from), Some(to)) = (routes.known(from), routes.find(to)) else { return };
        from.repeats.keep(true);
        let places = &to.repeats.places;
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(places.available_permits());
        for (repeat, times) in from.repeats.take(count, &to.safe, Instant::now()) {
            let taken =
                u32::try_from(times).map(|it| Arc::clone(places).try_acquire_many_owned(it));
            let Ok(Ok(places)) = taken else { return };
            tokio::spawn(round(Arc::clone(to), repeat, times, places));
        }
    }

    /// Forgets what failed on `from`, and keeps no more of it.
    pub fn shadow_off(&self, from: Number) {
        if let Some(from) = self.upstream(from) {
            from.repeats.keep(false);
        }
    }

    /// Repeats that ended on `to` since it was added, and how many of them were bad: server faults,
    /// tool faults, and no answer within 2 s. What says nothing about the release is in neither.
    pub fn shadowed(&self, to: Number) -> (u64, u64) {
        self.upstream(to).map(|to| to.repeats.counts()).unwrap_or_default()
    }

    /// Takes these tools for safe to repeat, and those that the operator names.
    pub fn set_safe_tools(&self, tools: BTreeSet<String>) {
        self.safe.learn(tools);
        self.learned();
    }

    /// Every release counts by what is safe now.
    pub(super) fn learned(&self) {
        self.front.routes.load().all().iter().for_each(|upstream| upstream.tally.learn());
    }
}

/// Some repeats of one request, on a session of their own where sessions are spoken.
async fn round(to: Arc<Upstream>, repeat: Arc<Repeat>, times: usize, places: OwnedSemaphorePermit) {
    tokio::select! {
        // What a release that is left does not answer is not its fault.
        () = to.cut.cancelled() => (),
        () = ask(&to, &repeat, times) => (),
    }
    drop(places);
}

async fn ask(to: &Upstream, repeat: &Repeat, times: usize) {
    let call = || {
        let id = fresh_id();
        repeat.body(&id, &to.safe).map(|body| (id, body))
    };
    let calls: Vec<_> = (0..times).map_while(|_| call()).collect();
    if calls.is_empty() {
        return;
    }
    let road = match Road::enter(to, repeat).await {
        Ok(road) => road,
        Err(class) => return calls.iter().for_each(|_| count(to, class)),
    };
    let calls = calls.into_iter().map(async |(id, body)| count(to, road.call(&id, body).await));
    join_all(calls).await;
    road.leave().await;
}

fn count(to: &Upstream, class: Class) {
    match class {
        Class::Ok => to.repeats.count(false),
        Class::ServerFault | Class::ToolFault => to.repeats.count(true),
        Class::ClientFault | Class::Neutral => (),
    }
}

/// An id that no client used.
fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("rollbackd-shadow-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The way to a release, with what each request on it bears.
struct Road<'a> {
    to: &'a Upstream,
    repeat: &'a Repeat,
    headers: HeaderMap,
}

/// What came back.
struct Heard {
    class: Class,
    session: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
}

impl<'a> Road<'a> {
    /// A session of its own for a legacy request. The error is the class of the refusal.
    async fn enter(to: &'a Upstream, repeat: &'a Repeat) -> Result<Self, Class> {
        let mut headers = repeat.headers.clone();
        headers.insert(headers::SHADOW, HeaderValue::from_static("1"));
        if let Ok(host) = HeaderValue::from_str(&to.authority) {
            headers.insert(http::header::HOST, host);
        }
        let mut road = Self { to, repeat, headers };
        if headers::is_modern(&road.headers) {
            return Ok(road);
        }
        let offer = road.headers.remove(headers::PROTOCOL).unwrap_or(UNSAID);
        let id = fresh_id();
        let client = json!({"name": "rollbackd-shadow", "version": env!("CARGO_PKG_VERSION")});
        let offer = offer.to_str().unwrap_or_default();
        let params = json!({"protocolVersion": offer, "capabilities": {}, "clientInfo": client});
        let hello = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params});
        let heard = road.post(Bytes::from(hello.to_string()), &id).await;
        let Heard { class: Class::Ok, session, protocol } = heard else { return Err(heard.class) };
        road.headers.extend(session.map(|id| (headers::SESSION, id)));
        road.headers.extend(protocol.map(|it| (headers::PROTOCOL, it)));
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        match road.send(Method::POST, Upload::ready(Bytes::from(done))).await {
            Some(_) => Ok(road),
            None => Err(Class::ServerFault),
        }
    }

    async fn call(&self, id: &str, body: Bytes) -> Class {
        self.post(body, id).await.class
    }

    /// Ends the session. A server may refuse it; that is its right.
    async fn leave(&self) {
        if self.headers.contains_key(headers::SESSION) {
            self.send(Method::DELETE, Upload::default()).await;
        }
    }

    /// Sends a request, and reads until the answer to its id.
    async fn post(&self, body: Bytes, id: &str) -> Heard {
        let failed = Heard { class: Class::ServerFault, session: None, protocol: None };
        let work = async {
            let response = self.sent(Method::POST, Upload::ready(body)).await?;
            let session = response.headers().get(headers::SESSION).cloned();
            let (status, answer, said) = answer(response, &format!("\"{id}\"")).await?;
            let (method, in_session) = (&Method::POST, self.headers.contains_key(headers::SESSION));
            let said = &said;
            let lost =
                session_lost(&Answered { method, in_session, status: status.as_u16(), said });
            let (class, protocol) = match answer {
                // Without the client's credentials nothing can be said, whatever the body says.
                _ if matches!(status.as_u16(), 401 | 403) => (Class::ClientFault, None),
                // A session that was opened a moment ago.
                _ if lost => (Class::ServerFault, None),
                Answer::Message(message) => (classify::answer(status, &message), message.protocol),
                Answer::Later => (Class::Neutral, None),
                Answer::Missing if status.is_success() => (Class::ServerFault, None),
                Answer::Missing | Answer::Unread => (classify::status(status), None),
            };
            let protocol = protocol.and_then(|it| HeaderValue::from_str(&it).ok());
            Some(Heard { class, session, protocol })
        };
        tokio::time::timeout(DEADLINE, work).await.ok().flatten().unwrap_or(failed)
    }

    /// Sends what has no answer but its status. `None` when none came in time.
    async fn send(&self, method: Method, body: Upload) -> Option<StatusCode> {
        let sent = tokio::time::timeout(DEADLINE, self.sent(method, body)).await.ok().flatten();
        sent.map(|response| response.status())
    }

    async fn sent(&self, method: Method, body: Upload) -> Option<Response<Incoming>> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(self.to.authority.as_str()).ok();
        uri.path_and_query = Some(self.repeat.path.clone());
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = self.headers.clone();
        self.to.client.request(request).await.ok()
    }
}

/// How an answer ended.
enum Answer {
    /// With the message for the id.
    Message(Box<Message>),
    /// Early, to be taken up with a GET (2025-11-25).
    Later,
    /// Without a message for the id.
    Missing,
    /// It is compressed.
    Unread,
}

/// Reads until the answer to an id, and what a refusal says. `None` when the stream broke.
async fn answer(response: Response<Incoming>, id: &str) -> Option<(StatusCode, Answer, Said)> {
    let (head, mut body) = response.into_parts();
    let nothing = Said::Text(String::new());
    if headers::is_encoded(&head.headers) {
        return Some((head.status, Answer::Unread, nothing));
    }
    if head.status.is_client_error() && !headers::is_events(&head.headers) {
        return refusal(head.status, body, id).await;
    }
    let mut events = headers::is_events(&head.headers).then(Events::new);
    let mut scan = Scan::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        let mut answer = None;
        let found = |message: Message| {
            if message.is_answer() && message.id.as_deref().is_some_and(|it| same_id(it, id)) {
                answer = Some(Box::new(message));
            }
        };
        match &mut events {
            Some(events) => events.feed(&data, found),
            None => scan.feed(&data, found),
        }
        if let Some(message) = answer {
            return Some((head.status, Answer::Message(message), nothing));
        }
    }
    let later = events.is_some_and(|events| events.resumable());
    Some((head.status, if later { Answer::Later } else { Answer::Missing }, nothing))
}

/// The same for an error that is no stream, as far as it is short.
async fn refusal(
    status: StatusCode,
    body: Incoming,
    id: &str,
) -> Option<(StatusCode, Answer, Said)> {
    let (mut body, mut text) = (body, Vec::new());
    while let Some(frame) = body.frame().await
        && text.len() < REFUSAL_MAX
    {
        text.extend(frame.ok()?.data_ref().into_iter().flatten());
    }
    let mut answer = Answer::Missing;
    Scan::default().feed(&text, |message| {
        if message.is_answer() && message.id.as_deref().is_some_and(|it| same_id(it, id)) {
            answer = Answer::Message(Box::new(message));
        }
    });
    Some((status, answer, Said::of(&text)))
}
