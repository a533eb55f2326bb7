//! JSON lines: one message a line, of limited length.

use std::io;

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

/// Reads lines of a limited length.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    frames: FramedRead<R, LinesCodec>,
    line_max: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(reader: R, line_max: usize) -> Self {
        let codec = LinesCodec::new_with_max_length(line_max);
        Self { frames: FramedRead::new(reader, codec), line_max }
    }

    /// The next line without its end; `None` at the end of the stream. An incomplete last line is
    /// returned as it is. It is safe to drop the future: the next call continues with the line.
    ///
    /// # Errors
    /// When reading fails. `InvalidData` is a line that is too long or not UTF-8.
    pub(super) async fn next_line(&mut self) -> io::Result<Option<String>> {
        self.frames.next().await.transpose().map_err(|error| match error {
            LinesCodecError::Io(error) => error,
            LinesCodecError::MaxLineLengthExceeded => {
                let message = format!("a line is longer than {} bytes", self.line_max);
                io::Error::new(io::ErrorKind::InvalidData, message)
            }
        })
    }

    /// The stream, without what was already read from it.
    pub(super) fn into_inner(self) -> R {
        self.frames.into_inner()
    }
}

/// Encodes a message as one line.
pub(super) fn encode_line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
