//! A `subscriptions/listen` stream (2026-07-28). When its release drains, the proxy opens it at the
//! next release, and notifies the client that the lists changed. One that its release breaks is opened
//! again as soon as a release serves: clients do not do that themselves.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::clock::monotonic;
use crate::mcp::messages;
use crate::proxy::backend::body::ReleaseBody;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::cancellation::{Cancelled, cancelled};
use crate::proxy::exchange::held_events::HeldEvents;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::replay::{NotReopened, ReopenFuture, Reroute};
use crate::proxy::exchange::resumable_stream::REPEATED_WITHIN;
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::exchange::take_up::{HOLD_MAX, RETRY_DELAY, RETRY_DELAY_MAX};

/// The time limit for the next release to start the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A stream that can continue at another release.
pub(in crate::proxy) struct Subscription {
    reroute: Arc<dyn Reroute>,
    held_events: Arc<HeldEvents>,
    request: Arc<ClientRequest>,
    body: Bytes,
    release_left: Option<Cancelled>,
    end_streams: Cancelled,
    opening: Option<ReopenFuture>,
    /// When its release broke it last.
    broken_at: Option<Instant>,
}

/// How a subscription continues.
pub(in crate::proxy) enum SubscriptionEvent {
    /// At another release.
    Reopened(ReleaseBody, Box<InFlight>),
    /// No other release accepts it.
    ReopenFailed,
    /// It ends: the proxy closes.
    Ended,
}

impl Subscription {
    /// `None` for other requests, and when the body was not read whole.
    pub(in crate::proxy) fn new(
        reroute: Arc<dyn Reroute>,
        state: &ProxyState,
        request: &Arc<ClientRequest>,
        in_flight: &InFlight,
    ) -> Option<Self> {
        if in_flight.kind() != ExchangeKind::Subscription {
            return None;
        }
        let body = in_flight.request_body.as_ref()?.buffered()?.clone();
        Some(Self {
            reroute,
            held_events: Arc::clone(&state.held_events),
            request: Arc::clone(request),
            body,
            release_left: Some(cancelled(&in_flight.backend.draining)),
            end_streams: cancelled(&state.end_streams),
            opening: None,
            broken_at: None,
        })
    }

    /// The next event, once its release drains or the proxy closes.
    pub(in crate::proxy) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SubscriptionEvent> {
        if self.end_streams.as_mut().poll(cx).is_ready() {
            self.opening = None;
            return Poll::Ready(SubscriptionEvent::Ended);
        }
        if self
            .release_left
            .as_mut()
            .is_some_and(|release_left| release_left.as_mut().poll(cx).is_ready())
        {
            self.release_left = None;
            let (reroute, request) = (Arc::clone(&self.reroute), Arc::clone(&self.request));
            let opening = reroute.reopen(request, self.body.clone());
            let opening = tokio::time::timeout(OPEN_TIMEOUT, opening);
            self.opening =
                Some(Box::pin(
                    async move { opening.await.unwrap_or(Err(NotReopened::Unavailable)) },
                ));
        }
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        let opened = std::task::ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(match opened {
            Ok((body, in_flight)) => SubscriptionEvent::Reopened(body, Box::new(in_flight)),
            Err(_) => SubscriptionEvent::ReopenFailed,
        })
    }

    /// Its release broke it: opens it again as soon as the release, or another one, serves.
    pub(in crate::proxy) fn take_up(&mut self) {
        let now = monotonic();
        // A release that breaks each stream is not asked all the time.
        let is_repeated = self.broken_at.replace(now).is_some_and(|at| now - at < REPEATED_WITHIN);
        let mut delay = if is_repeated { RETRY_DELAY_MAX } else { RETRY_DELAY };
        let (reroute, request) = (Arc::clone(&self.reroute), Arc::clone(&self.request));
        let body = self.body.clone();
        self.opening = Some(Box::pin(async move {
            while monotonic() - now < HOLD_MAX {
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_DELAY_MAX);
                let reopening = Arc::clone(&reroute).reopen(Arc::clone(&request), body.clone());
                match tokio::time::timeout(OPEN_TIMEOUT, reopening).await {
                    Ok(Err(NotReopened::Unavailable)) | Err(_) => (),
                    Ok(opened) => return opened,
                }
            }
            Err(NotReopened::Unavailable)
        }));
    }

    /// Whether the next release has not responded yet.
    pub(in crate::proxy) fn is_reopening(&self) -> bool {
        self.opening.is_some()
    }

    /// What the streams of the service keep of events.
    pub(in crate::proxy) fn held_events(&self) -> Arc<HeldEvents> {
        Arc::clone(&self.held_events)
    }

    /// Watches the release to which it moved.
    pub(in crate::proxy) fn moved_to(&mut self, in_flight: &InFlight) {
        self.release_left = Some(cancelled(&in_flight.backend.draining));
    }

    /// Notifications that each list it listens for may have changed.
    pub(in crate::proxy) fn changed_notifications(&self) -> Vec<String> {
        let request: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let wanted = |name: &str| {
            request.pointer(&format!("/params/notifications/{name}ListChanged"))
                == Some(&Value::Bool(true))
        };
        let id = request.get("id").unwrap_or(&Value::Null);
        ["tools", "prompts", "resources"]
            .into_iter()
            .filter(|it| wanted(it))
            .map(|name| messages::list_changed(name, Some(id)))
            .collect()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the head: it may hold credentials.
        f.write_str("Subscription")
    }
}
