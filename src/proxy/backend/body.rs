//! The body of a request to a release, and that of its response.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::content_coding;

/// The body of a response of a release, as the proxy reads it.
pub(in crate::proxy) type ReleaseBody = content_coding::PlainBody<Incoming>;

/// A response whose body the proxy reads: decoded, where the release compressed it although the request
/// did not ask for it.
pub(in crate::proxy) fn decoded(response: Response<Incoming>) -> Response<ReleaseBody> {
    let (mut head, body) = response.into_parts();
    let body = content_coding::decode(head.status, &mut head.headers, body);
    Response::from_parts(head, body)
}

/// A body that the connection reads while the proxy keeps its own handle to it.
pub(in crate::proxy) trait SharedBody: fmt::Debug + Send + Sync {
    /// The next frame.
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>>;

    /// Whether the end was reached.
    fn is_end_stream(&self) -> bool;

    /// The size of what remains.
    fn size_hint(&self) -> SizeHint;
}

/// What the proxy sends to a release.
#[derive(Debug)]
pub(in crate::proxy) enum BackendBody {
    /// Bytes that are all known.
    Full(Full<Bytes>),
    /// A client's body, which may still be arriving.
    Shared(Arc<dyn SharedBody>),
}

impl Default for BackendBody {
    fn default() -> Self {
        Self::Full(Full::default())
    }
}

impl From<Bytes> for BackendBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}

impl Body for BackendBody {
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
            Self::Shared(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Shared(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Shared(body) => body.size_hint(),
        }
    }
}
