//! The response to a replayed request, inside the stream that the first release started.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;

use crate::mcp::headers::is_event_stream;
use crate::proxy::exchange::replay::{BoxedBody, ReplayFuture};

/// The response of another release, inside a stream that the first release started.
pub(in crate::proxy) enum SplicedResponse {
    /// The request was sent.
    Requested(ReplayFuture),
    /// The response is a stream of events.
    Events(BoxedBody),
    /// The response is JSON; these bytes arrived.
    Json(BoxedBody, Vec<u8>),
    /// It ended.
    Over,
}

/// The largest JSON response that becomes an event.
const JSON_EVENT_MAX: usize = 4 * 1024 * 1024;

impl SplicedResponse {
    /// The next bytes. An error: there is no response. Nothing follows an error or the end.
    pub(in crate::proxy) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ()>>> {
        loop {
            let last = match self {
                Self::Requested(response_future) => {
                    let response = std::task::ready!(response_future.as_mut().poll(cx));
                    let is_events = is_event_stream(response.headers());
                    let is_success = response.status().is_success();
                    let body = response.into_body();
                    let next = match (is_success, is_events) {
                        (true, true) => Self::Events(body),
                        (true, false) => Self::Json(body, Vec::new()),
                        (false, _) => Self::Over,
                    };
                    *self = next;
                    if is_success {
                        continue;
                    }
                    Some(Err(()))
                }
                Self::Events(body) => match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(data))),
                        Err(_) => continue,
                    },
                    Some(Err(_)) => Some(Err(())),
                    None => None,
                },
                Self::Json(body, text) => match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        text.extend(frame.data_ref().into_iter().flatten());
                        if text.len() <= JSON_EVENT_MAX {
                            continue;
                        }
                        Some(Err(()))
                    }
                    Some(Err(_)) => Some(Err(())),
                    None => event(std::mem::take(text)).map(Ok),
                },
                Self::Over => None,
            };
            *self = Self::Over;
            return Poll::Ready(last);
        }
    }
}

/// An event with this JSON; `None` for an empty text.
fn event(mut text: Vec<u8>) -> Option<Bytes> {
    // Between JSON tokens a line end equals a space.
    let line = |byte: &u8| matches!(byte, b'\n' | b'\r');
    text.iter_mut().filter(|it| line(it)).for_each(|it| *it = b' ');
    let event = [b"event: message\ndata: ", text.as_slice(), b"\n\n"];
    (!text.is_empty()).then(|| Bytes::from(event.concat()))
}

impl fmt::Debug for SplicedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SplicedResponse")
    }
}
