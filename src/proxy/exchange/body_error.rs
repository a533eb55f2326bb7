//! Why the body of a client cannot be forwarded, and what the client gets.

use std::io;

use http::StatusCode;

/// Why a body cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BodyError {
    /// It is larger than `body_max`.
    TooLarge,
    /// The client sent less than `min_rate` for 30 s.
    TimedOut,
    /// The client closed the connection.
    Disconnected,
    /// It does not match the headers.
    HeaderMismatch,
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> Self {
        Self::other(error.text())
    }
}

impl BodyError {
    /// The status of the response.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TimedOut | Self::Disconnected => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderMismatch => StatusCode::BAD_REQUEST,
        }
    }

    /// The text of the response.
    pub(in crate::proxy) fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the request body is too large",
            Self::TimedOut => "timed out reading the request body: slower than limits.min_rate",
            Self::Disconnected => "the client closed the connection",
            Self::HeaderMismatch => "Mcp-Method or Mcp-Name does not match the body",
        }
    }
}
