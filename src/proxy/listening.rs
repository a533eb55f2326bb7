//! A `subscriptions/listen` stream (2026-07-28): when its release is left, the next one is asked to
//! listen in its place, and the client hears that the lists changed.

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

use super::exchange::{Exchange, Kind};
use super::front::Front;
use super::headers;
use super::session::What;
use super::upload::Upload;

/// How long the next release may take to begin.
const OPEN_MAX: Duration = Duration::from_secs(5);

type Opening = Pin<Box<dyn Future<Output = Option<(Incoming, Exchange)>> + Send>>;

/// A stream that goes on at another release.
pub(super) struct Listening {
    front: Arc<Front>,
    peer: IpAddr,
    head: request::Parts,
    body: Bytes,
    left: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    opening: Option<Opening>,
}

/// How a stream that listens goes on.
pub(super) enum Next {
    /// At another release.
    At(Incoming, Box<Exchange>),
    /// No other release takes it.
    Nowhere,
    /// It does not: the proxy stops.
    Over,
}

impl Listening {
    /// `None` where it can not be asked for again.
    pub(super) fn new(
        front: &Arc<Front>,
        peer: IpAddr,
        head: &request::Parts,
        upload: &Upload,
        exchange: &Exchange,
    ) -> Option<Box<Self>> {
        let body = upload.whole().filter(|_| exchange.kind() == Kind::Listen)?.clone();
        let left = Some(Box::pin(exchange.upstream.left.clone().cancelled_owned()));
        let stop = Box::pin(front.stop.clone().cancelled_owned());
        let (front, head) = (Arc::clone(front), head.clone());
        Some(Box::new(Self { front, peer, head, body, left, stop, opening: None }))
    }

    /// How it goes on, once its release is left or the proxy stops.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.stop.as_mut().poll(cx).is_ready() {
            self.opening = None;
            return Poll::Ready(Next::Over);
        }
        if self.left.as_mut().is_some_and(|left| left.as_mut().poll(cx).is_ready()) {
            self.left = None;
            let (front, peer) = (Arc::clone(&self.front), self.peer);
            let opening = open(front, peer, self.head.clone(), self.body.clone());
            let opening = tokio::time::timeout(OPEN_MAX, opening);
            self.opening = Some(Box::pin(async move { opening.await.unwrap_or(None) }));
        }
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        let opened = std::task::ready!(opening.as_mut().poll(cx));
        self.opening = None;
        let next = opened.map(|(body, exchange)| Next::At(body, Box::new(exchange)));
        Poll::Ready(next.unwrap_or(Next::Nowhere))
    }

    /// Whether the next release was asked, and has not answered yet.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// It is at another release now, and can be moved again.
    pub(super) fn at(&mut self, exchange: &Exchange) {
        self.left = Some(Box::pin(exchange.upstream.left.clone().cancelled_owned()));
    }

    /// What the client has to hear: that what it listens for may have changed.
    pub(super) fn news(&self) -> Vec<String> {
        let asked: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let wanted = |name: &str| {
            asked.pointer(&format!("/params/notifications/{name}ListChanged"))
                == Some(&Value::Bool(true))
        };
        let meta = json!({"io.modelcontextprotocol/subscriptionId": asked.get("id")});
        let news = |name: &str| {
            let method = format!("notifications/{name}/list_changed");
            json!({"jsonrpc": "2.0", "method": method, "params": {"_meta": meta}}).to_string()
        };
        ["tools", "prompts", "resources"].into_iter().filter(|it| wanted(it)).map(news).collect()
    }
}

async fn open(
    front: Arc<Front>,
    peer: IpAddr,
    mut head: request::Parts,
    body: Bytes,
) -> Option<(Incoming, Exchange)> {
    let upload = Upload::of(body);
    let mut routed = front.route(&head, What::Listen, peer).await.ok()?;
    if routed.upstream.left.is_cancelled() {
        return None;
    }
    let exchange = front.exchange(&mut routed, Kind::Listen, upload.asked());
    front.address(&mut head, &routed, peer);
    let sending = routed.upstream.client.request(Request::from_parts(head, upload));
    let response = sending.await.ok().filter(|it| it.status().is_success())?;
    headers::is_events(response.headers()).then(|| (response.into_body(), exchange))
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the head: it may hold credentials.
        f.write_str("Listening")
    }
}
