//! Content codings (RFC 9110, section 8.4). Some servers compress a response although the request did
//! not ask for it. [`decode`] turns the body back into what the server wrote, while it passes.
//!
//! An unknown coding stays as it is, and so does a part of a body (206), which cannot be decoded alone.

mod coding;
mod decoder;

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};

use coding::Coding;
use decoder::DecodedBody;
pub(crate) use decoder::is_over_limit;

/// Headers that describe the coded bytes (RFC 9530; RFC 3230 and RFC 1864 before it).
const OF_CODED_BYTES: [HeaderName; 7] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// A body without a content coding, unless that is unknown.
#[derive(Debug)]
pub(crate) enum PlainBody<B> {
    /// As it arrives.
    AsSent(B),
    /// Decoded as it arrives.
    Decoded(Box<DecodedBody>),
}

/// The body of a response, decoded; then the headers no longer name the coding.
pub(crate) fn decode<B>(status: StatusCode, headers: &mut HeaderMap, body: B) -> PlainBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    // Nearly all responses have none.
    if !headers.contains_key(header::CONTENT_ENCODING) {
        return PlainBody::AsSent(body);
    }
    let is_part =
        status == StatusCode::PARTIAL_CONTENT || headers.contains_key(header::CONTENT_RANGE);
    let coding = Coding::of(headers).filter(|_| !is_part && !body.is_end_stream());
    let Some(coding) = coding else { return PlainBody::AsSent(body) };
    let is_endless = crate::mcp::headers::is_event_stream(headers);
    OF_CODED_BYTES.iter().for_each(|name| _ = headers.remove(name));
    weaken_etag(headers);
    PlainBody::Decoded(Box::new(DecodedBody::new(coding, body, is_endless)))
}

/// The decoded bytes are another representation than the coded ones (RFC 9110, section 8.8.3.3).
fn weaken_etag(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).map(HeaderValue::as_bytes) else { return };
    if !tag.starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

impl<B> Body for PlainBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::AsSent(body) => {
                Pin::new(body).poll_frame(cx).map(|it| it.map(|it| it.map_err(io::Error::other)))
            }
            Self::Decoded(body) => body.poll_data(cx).map(|it| it.map(|it| it.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::AsSent(body) => body.is_end_stream(),
            Self::Decoded(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::AsSent(body) => body.size_hint(),
            Self::Decoded(_) => SizeHint::new(),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
