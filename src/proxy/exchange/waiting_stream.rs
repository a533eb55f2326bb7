//! A GET stream that waits for another stream of its session to end.
//!
//! Some releases allow one GET stream for a session. Some clients have several: the TypeScript SDK opens one
//! for each cancelled call that had an event id. Once the session has moved, the next release does not know
//! these ids, and only one of the streams finds a place there. If each ended the one before, its client would
//! come back, and so on. The others wait here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, response};
use http_body::Frame;
use tokio::sync::mpsc;

use crate::mcp::headers::EVENT_STREAM;
use crate::mcp::sse;
use crate::proxy::exchange::request_place::RequestPlace;
use crate::proxy::exchange::response_body::ping::{COMMENT, Ping};
use crate::proxy::exchange::response_body::release_left::RECONNECT_MS;
use crate::proxy::exchange::state::ProxyState;
use crate::proxy::routing::view::RoutingView;
use crate::proxy::session::StreamCommand;

type EndFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream without events, but for comments.
pub(in crate::proxy) struct WaitingStream {
    /// `None` after the end.
    end: Option<EndFuture>,
    ping: Ping,
    place: RequestPlace,
}

impl WaitingStream {
    /// Waits until the other stream ends, or the proxy closes.
    pub(super) fn new(
        other: mpsc::Sender<StreamCommand>,
        state: &ProxyState,
        view: &RoutingView,
    ) -> Self {
        let end_streams = state.end_streams.clone();
        let end: EndFuture = Box::pin(async move {
            tokio::select! {
                () = other.closed() => (),
                () = end_streams.cancelled() => (),
            }
        });
        Self {
            end: Some(end),
            ping: Ping::new(view.service.limits.sse_ping),
            place: RequestPlace::default(),
        }
    }

    /// The head of its response, made of that of the release that refused it.
    pub(super) fn head_of(mut head: response::Parts) -> response::Parts {
        head.status = StatusCode::OK;
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        head.headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        head
    }

    /// Keeps the place of the client's address until the end.
    pub(super) fn set_place(&mut self, place: RequestPlace) {
        self.place = place;
    }

    /// Whether the client got everything.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_none()
    }

    /// The next frame. At the end, the client is told to come back.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        if end.as_mut().poll(cx).is_ready() {
            self.end = None;
            return Poll::Ready(Some(Ok(Frame::data(sse::encode_retry(RECONNECT_MS)))));
        }
        self.ping.poll(cx).map(|()| Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
    }
}

impl std::fmt::Debug for WaitingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitingStream").field("place", &self.place).finish_non_exhaustive()
    }
}
