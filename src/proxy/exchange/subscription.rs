//! A `subscriptions/listen` stream (2026-07-28). When its release drains, the proxy opens it at the
//! next release, and notifies the client that the lists changed.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::proxy::backend::headers;
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::session::ClientMessageKind;

/// The time limit for the next release to start the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

type OpenFuture = Pin<Box<dyn Future<Output = Option<(Incoming, InFlight)>> + Send>>;

/// A stream that can continue at another release.
pub(in crate::proxy) struct Subscription {
    state: Arc<ProxyState>,
    peer: IpAddr,
    head: request::Parts,
    body: Bytes,
    release_left: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    end_streams: Pin<Box<WaitForCancellationFutureOwned>>,
    opening: Option<OpenFuture>,
}

/// How a subscription continues.
pub(in crate::proxy) enum SubscriptionEvent {
    /// At another release.
    Reopened(Incoming, Box<InFlight>),
    /// No other release accepts it.
    ReopenFailed,
    /// It ends: the proxy closes.
    Ended,
}

impl Subscription {
    /// `None` for other requests, and when the body was not read whole.
    pub(in crate::proxy) fn new(
        state: &Arc<ProxyState>,
        peer: IpAddr,
        head: &request::Parts,
        request_body: &RequestBody,
        in_flight: &InFlight,
    ) -> Option<Box<Self>> {
        let body = request_body
            .buffered()
            .filter(|_| in_flight.kind() == ExchangeKind::Subscription)?
            .clone();
        let release_left = Some(Box::pin(in_flight.backend.draining.clone().cancelled_owned()));
        let end_streams = Box::pin(state.end_streams.clone().cancelled_owned());
        let (state, head) = (Arc::clone(state), head.clone());
        Some(Box::new(Self { state, peer, head, body, release_left, end_streams, opening: None }))
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
            let (state, peer) = (Arc::clone(&self.state), self.peer);
            let opening = reopen(state, peer, self.head.clone(), self.body.clone());
            let opening = tokio::time::timeout(OPEN_TIMEOUT, opening);
            self.opening = Some(Box::pin(async move { opening.await.unwrap_or(None) }));
        }
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        let opened = std::task::ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let event =
            opened.map(|(body, in_flight)| SubscriptionEvent::Reopened(body, Box::new(in_flight)));
        Poll::Ready(event.unwrap_or(SubscriptionEvent::ReopenFailed))
    }

    /// Whether the next release has not responded yet.
    pub(in crate::proxy) fn is_reopening(&self) -> bool {
        self.opening.is_some()
    }

    /// Watches the release to which it moved.
    pub(in crate::proxy) fn moved_to(&mut self, in_flight: &InFlight) {
        self.release_left = Some(Box::pin(in_flight.backend.draining.clone().cancelled_owned()));
    }

    /// Notifications that each list it listens for may have changed.
    pub(in crate::proxy) fn changed_notifications(&self) -> Vec<String> {
        let request: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let wanted = |name: &str| {
            request.pointer(&format!("/params/notifications/{name}ListChanged"))
                == Some(&Value::Bool(true))
        };
        let meta = json!({"io.modelcontextprotocol/subscriptionId": request.get("id")});
        let notification = |name: &str| {
            let method = format!("notifications/{name}/list_changed");
            json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta}}).to_string()
        };
        ["tools", "prompts", "resources"]
            .into_iter()
            .filter(|it| wanted(it))
            .map(notification)
            .collect()
    }
}

async fn reopen(
    state: Arc<ProxyState>,
    peer: IpAddr,
    mut head: request::Parts,
    body: Bytes,
) -> Option<(Incoming, InFlight)> {
    let request_body = RequestBody::from_bytes(body);
    let mut route = state.route(&head, ClientMessageKind::Listen, peer).await.ok()?;
    if route.backend.draining.is_cancelled() {
        return None;
    }
    let in_flight =
        state.start_in_flight(&mut route, ExchangeKind::Subscription, request_body.parsed());
    state.to_backend_head(&mut head, &route, peer);
    let sending = route.backend.send(Request::from_parts(head, request_body.to_backend_body()));
    let response = sending.await.ok().filter(|it| it.status().is_success())?;
    headers::is_event_stream(response.headers()).then(|| (response.into_body(), in_flight))
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the head: it may hold credentials.
        f.write_str("Subscription")
    }
}
