//! The body of a response to a client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

use crate::proxy::exchange::endpoint_capture::EndpointCapture;
use crate::proxy::exchange::request_place::RequestPlace;
use crate::proxy::exchange::response_body::ResponseBody;
use crate::proxy::exchange::waiting_stream::WaitingStream;

/// The body of a response to a client.
#[derive(Debug)]
pub(in crate::proxy) enum ClientBody {
    /// All bytes are known.
    Full(Full<Bytes>),
    /// It streams from a release.
    Streaming(Box<ResponseBody>),
    /// It waits until another stream of its session ends.
    Waiting(Box<WaitingStream>),
}

impl ClientBody {
    /// The body, which keeps the place of its client's address until it ends.
    pub(in crate::proxy) fn with_place(mut self, place: RequestPlace) -> Self {
        // The proxy has all of a full one.
        match &mut self {
            Self::Streaming(body) => body.set_place(place),
            Self::Waiting(stream) => stream.set_place(place),
            Self::Full(_) => (),
        }
        self
    }
}

impl ClientBody {
    /// The body, whose start may name the endpoint of a session of HTTP+SSE.
    pub(super) fn with_endpoint(self, endpoint: Option<EndpointCapture>) -> Self {
        match self {
            Self::Streaming(body) => Self::Streaming(Box::new(body.with_endpoint(endpoint))),
            other @ (Self::Full(_) | Self::Waiting(_)) => other,
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full)
                .poll_frame(cx)
                .map(|it| it.map(|it| it.map_err(|never| match never {}))),
            Self::Streaming(body) => body.poll_next(cx),
            Self::Waiting(stream) => stream.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Streaming(body) => body.is_finished(),
            Self::Waiting(stream) => stream.is_finished(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Streaming(_) | Self::Waiting(_) => SizeHint::new(),
        }
    }
}
