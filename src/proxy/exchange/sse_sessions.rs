//! The sessions of the HTTP+SSE transport (2024-11-05): each is one stream of a release, on which the
//! answers to the messages come that its client posts elsewhere.
//!
//! Such a session cannot move: it is its stream. It stays at its release until one of both ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{StatusCode, request};

use crate::mcp::headers::MCP_SESSION_ID;
use crate::mcp::message::Message;
use crate::mcp::messages::{FailureReason, error_response};
use crate::mcp::{sse, sse_endpoint};
use crate::model::Outcome;
use crate::mutex::lock;
use crate::proxy::backend::Backend;
use crate::proxy::exchange::in_flight::InFlight;

/// POSTs of a session that wait for their answers. Of more, the oldest is no longer watched.
const CALLS_MAX: usize = 128;
/// Paths of streams that are kept. A server has one.
const STREAM_PATHS_MAX: usize = 16;

/// The open sessions of a service, by what names them in the URL of a POST.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SseSessions {
    count: AtomicUsize,
    /// The paths of the streams, and whether there is one: most services have none.
    stream_paths: Mutex<BTreeSet<String>>,
    has_paths: AtomicBool,
    by_key: Mutex<BTreeMap<String, Arc<SseSession>>>,
}

/// One session.
#[derive(Debug)]
pub(in crate::proxy) struct SseSession {
    /// The release that holds its stream.
    pub backend: Arc<Backend>,
    calls: Mutex<Calls>,
    stream: AtomicWaker,
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: VecDeque<WaitingCall>,
    /// Events that the proxy adds to the stream.
    events: VecDeque<Bytes>,
}

/// A POST whose requests wait for their answers.
#[derive(Debug)]
struct WaitingCall {
    number: u64,
    in_flight: InFlight,
    /// Whether the release took it.
    is_accepted: bool,
}

/// The session of an open stream; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct OpenSseSession {
    key: String,
    session: Arc<SseSession>,
    all: Arc<SseSessions>,
}

impl SseSessions {
    /// The stream of this release, at this path, named this URL for the POSTs of its client.
    pub(super) fn open(
        self: &Arc<Self>,
        stream_path: &str,
        path_and_query: &str,
        backend: &Arc<Backend>,
    ) -> OpenSseSession {
        let key = sse_endpoint::session_key(path_and_query);
        backend.sse_sessions.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(SseSession {
            backend: Arc::clone(backend),
            calls: Mutex::default(),
            stream: AtomicWaker::new(),
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut paths = lock(&self.stream_paths);
        if paths.len() < STREAM_PATHS_MAX {
            paths.insert(stream_path.to_owned());
            self.has_paths.store(true, Ordering::Relaxed);
        }
        drop(paths);
        lock(&self.by_key).insert(key.clone(), Arc::clone(&session));
        OpenSseSession { key, session, all: Arc::clone(self) }
    }

    /// Whether a GET of this path has opened one.
    pub(super) fn were_opened_at(&self, path: &str) -> bool {
        self.has_paths.load(Ordering::Relaxed) && lock(&self.stream_paths).contains(path)
    }

    /// The session of a POST, by its URL. A request with a session of Streamable HTTP has none.
    pub(super) fn find(&self, post: &request::Parts) -> Option<Arc<SseSession>> {
        if self.count.load(Ordering::Relaxed) == 0 || post.headers.contains_key(MCP_SESSION_ID) {
            return None;
        }
        let url = post.uri.path_and_query()?.as_str();
        let by_key = lock(&self.by_key);
        sse_endpoint::possible_keys(url).find_map(|key| by_key.get(key)).cloned()
    }
}

impl SseSession {
    /// A POST goes to the release: its answers come on the stream. Returns its number.
    pub(super) fn add(&self, in_flight: InFlight) -> u64 {
        let mut calls = lock(&self.calls);
        calls.last += 1;
        let number = calls.last;
        calls.waiting.push_back(WaitingCall { number, in_flight, is_accepted: false });
        let oldest = (calls.waiting.len() > CALLS_MAX).then(|| calls.waiting.pop_front());
        drop(calls);
        if let Some(mut oldest) = oldest.flatten() {
            oldest.in_flight.finish(Outcome::Neutral);
        }
        // The stream watches its deadline.
        self.stream.wake();
        number
    }

    /// The release did not take a POST.
    pub(super) fn take(&self, number: u64) -> Option<InFlight> {
        let mut calls = lock(&self.calls);
        let index = calls.waiting.iter().position(|it| it.number == number)?;
        calls.waiting.remove(index).map(|it| it.in_flight)
    }

    /// The release took a POST: one without requests has no answer.
    pub(super) fn accepted(&self, number: u64) {
        lock(&self.calls).waiting.retain_mut(|it| {
            it.is_accepted |= it.number == number;
            it.number != number || !it.in_flight.pending_ids().is_empty()
        });
    }

    /// The client no longer wants the answer to a request.
    pub(super) fn cancel(&self, id: &str) {
        self.retain(|call| call.cancel(id));
    }

    /// A message on the stream, whose last bytes are in this piece of it.
    pub(super) fn on_message(&self, message: &Message, piece: &[u8]) {
        self.retain(|call| {
            call.on_message(StatusCode::OK, message);
            call.explain_failures(piece);
        });
    }

    /// Applies this to each waiting POST, and forgets those that it answers.
    fn retain(&self, apply: impl Fn(&mut InFlight)) {
        lock(&self.calls).waiting.retain_mut(|WaitingCall { in_flight, .. }| {
            if in_flight.pending_ids().is_empty() {
                return true;
            }
            apply(in_flight);
            !in_flight.pending_ids().is_empty()
        });
    }

    /// Sends errors for the requests of a POST on the stream, where the client waits for the answers.
    pub(super) fn send_errors(&self, call: &mut InFlight, reason: FailureReason) {
        let ids = call.pending_ids();
        let errors = ids.into_iter().map(|id| sse::encode_event(&error_response(id, reason)));
        lock(&self.calls).events.extend(errors);
        self.stream.wake();
    }

    /// Lets the deadlines of the requests expire, and forgets what is past them. Wakes the stream when
    /// there is something new.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        self.stream.register(cx.waker());
        lock(&self.calls).waiting.retain_mut(|it| {
            it.in_flight.poll_timer(cx);
            !(it.is_accepted && it.in_flight.is_overdue())
        });
    }

    /// The next event of the proxy itself.
    pub(super) fn next_event(&self) -> Option<Bytes> {
        lock(&self.calls).events.pop_front()
    }

    /// The stream ends: all requests get this outcome. Returns the events that tell the client.
    pub(super) fn end(&self, outcome: Outcome, reason: FailureReason) -> Vec<Bytes> {
        let waiting = std::mem::take(&mut lock(&self.calls).waiting);
        let mut events = Vec::new();
        for WaitingCall { mut in_flight, .. } in waiting {
            let ids = in_flight.pending_ids();
            events.extend(ids.iter().map(|id| sse::encode_event(&error_response(id, reason))));
            ids.iter().for_each(|_| self.backend.count_error_response());
            in_flight.finish(outcome);
        }
        events
    }
}

impl std::ops::Deref for OpenSseSession {
    type Target = SseSession;

    fn deref(&self) -> &SseSession {
        &self.session
    }
}

impl Drop for OpenSseSession {
    fn drop(&mut self) {
        let mut by_key = lock(&self.all.by_key);
        // A stream that opened later may have the same name.
        if by_key.get(&self.key).is_some_and(|it| Arc::ptr_eq(it, &self.session)) {
            by_key.remove(&self.key);
        }
        drop(by_key);
        self.all.count.fetch_sub(1, Ordering::Relaxed);
        self.session.backend.sse_sessions.fetch_sub(1, Ordering::Relaxed);
        // The client left, or learned of the end.
        let waiting = std::mem::take(&mut lock(&self.session.calls).waiting);
        drop(waiting);
    }
}
