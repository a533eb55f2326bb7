//! The sessions of the HTTP+SSE transport (2024-11-05): each is one stream of a release, on which the
//! answers to the messages come that its client posts elsewhere.
//!
//! Such a session cannot move: it is its stream. It stays at its release until one of both ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::StatusCode;

use crate::mcp::message::Message;
use crate::mcp::messages::{FailureReason, error_response};
use crate::mcp::{sse, sse_endpoint};
use crate::model::Outcome;
use crate::proxy::backend::Backend;
use crate::proxy::exchange::in_flight::InFlight;

/// POSTs of a session that wait for their answers. Of more, the oldest is no longer watched.
const CALLS_MAX: usize = 128;

/// The open sessions of a service, by what names them in the URL of a POST.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SseSessions {
    count: AtomicUsize,
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
    waiting: VecDeque<(u64, InFlight)>,
    /// Events that the proxy adds to the stream.
    events: VecDeque<Bytes>,
}

/// The session of an open stream; it ends when this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct OpenSseSession {
    key: String,
    session: Arc<SseSession>,
    all: Arc<SseSessions>,
}

impl SseSessions {
    /// A stream of this release told its client to post here.
    pub(super) fn open(
        self: &Arc<Self>,
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
        lock(&self.by_key).insert(key.clone(), Arc::clone(&session));
        OpenSseSession { key, session, all: Arc::clone(self) }
    }

    /// The session of a POST to this URL.
    pub(super) fn find(&self, path_and_query: &str) -> Option<Arc<SseSession>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let by_key = lock(&self.by_key);
        sse_endpoint::possible_keys(path_and_query).find_map(|key| by_key.get(key)).cloned()
    }
}

impl SseSession {
    /// A POST goes to the release: its answers come on the stream. Returns its number.
    pub(super) fn add(&self, call: InFlight) -> u64 {
        let mut calls = lock(&self.calls);
        calls.last += 1;
        let number = calls.last;
        calls.waiting.push_back((number, call));
        let oldest = (calls.waiting.len() > CALLS_MAX).then(|| calls.waiting.pop_front());
        drop(calls);
        if let Some((_, mut oldest)) = oldest.flatten() {
            oldest.finish(Outcome::Neutral);
        }
        // The stream watches its deadline.
        self.stream.wake();
        number
    }

    /// The release did not take a POST.
    pub(super) fn take(&self, number: u64) -> Option<InFlight> {
        let mut calls = lock(&self.calls);
        let index = calls.waiting.iter().position(|(it, _)| *it == number)?;
        calls.waiting.remove(index).map(|(_, call)| call)
    }

    /// The release took a POST: one without requests has no answer.
    pub(super) fn accepted(&self, number: u64) {
        let mut calls = lock(&self.calls);
        let is_done =
            |(it, call): &mut (u64, InFlight)| *it == number && call.pending_ids().is_empty();
        calls.waiting.retain_mut(|it| !is_done(it));
    }

    /// The client no longer wants the answer to a request.
    pub(super) fn cancel(&self, id: &str) {
        self.retain(|call| call.cancel(id));
    }

    /// A message on the stream.
    pub(super) fn on_message(&self, message: &Message) {
        self.retain(|call| call.on_message(StatusCode::OK, message));
    }

    /// Applies this to each waiting POST, and forgets those that it answers.
    fn retain(&self, apply: impl Fn(&mut InFlight)) {
        lock(&self.calls).waiting.retain_mut(|(_, call)| {
            if call.pending_ids().is_empty() {
                return true;
            }
            apply(call);
            !call.pending_ids().is_empty()
        });
    }

    /// Sends errors for the requests of a POST on the stream, where the client waits for the answers.
    pub(super) fn send_errors(&self, call: &mut InFlight, reason: FailureReason) {
        let ids = call.pending_ids();
        let errors = ids.into_iter().map(|id| sse::encode_event(&error_response(id, reason)));
        lock(&self.calls).events.extend(errors);
        self.stream.wake();
    }

    /// Lets the deadlines of the requests expire. Wakes the stream when there is something new.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        self.stream.register(cx.waker());
        lock(&self.calls).waiting.iter_mut().for_each(|(_, call)| call.poll_timer(cx));
    }

    /// The next event of the proxy itself.
    pub(super) fn next_event(&self) -> Option<Bytes> {
        lock(&self.calls).events.pop_front()
    }

    /// The stream ends: all requests get this outcome. Returns the events that tell the client.
    pub(super) fn end(&self, outcome: Outcome, reason: FailureReason) -> Vec<Bytes> {
        let waiting = std::mem::take(&mut lock(&self.calls).waiting);
        let mut events = Vec::new();
        for (_, mut call) in waiting {
            let ids = call.pending_ids();
            events.extend(ids.iter().map(|id| sse::encode_event(&error_response(id, reason))));
            ids.iter().for_each(|_| self.backend.count_error_response());
            call.finish(outcome);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
