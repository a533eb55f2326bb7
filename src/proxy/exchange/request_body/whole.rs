//! Reads a large body as a whole.

use bytes::{Bytes, BytesMut};

use crate::proxy::exchange::body_error::BodyError;
use crate::proxy::exchange::request_body::RequestBody;

impl RequestBody {
    /// Whether it is buffered, or known to be a request or notification.
    pub(in crate::proxy) fn is_small_or_request(&self) -> bool {
        self.buffered.is_some() || self.lock().scanner.has_method()
    }

    /// Reads the rest of a body of at most `max` bytes. A longer one stays as it is.
    ///
    /// # Errors
    /// When the client does not send it.
    pub(in crate::proxy) async fn read_whole(self, max: usize) -> Result<Self, BodyError> {
        let mut buffer = BytesMut::new();
        while buffer.len() < max {
            let next = std::future::poll_fn(|cx| self.lock().poll_next(cx)).await;
            let Some(frame) = next else {
                let body = buffer.freeze();
                self.lock().ready.push_back(body.clone());
                return Ok(Self { buffered: Some(body), ..self });
            };
            let frame = frame.map_err(|_| self.lock().error.unwrap_or(BodyError::Disconnected))?;
            buffer.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        }
        self.lock().ready.push_front(buffer.freeze());
        Ok(self)
    }
}
