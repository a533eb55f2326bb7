use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Request, Response};

/// The longest line that is read, in bytes.
const LINE_MAX: usize = 1024 * 1024;

/// One conversation with the daemon. Every wait is the caller's to limit.
#[derive(Debug)]
pub struct ControlClient {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl ControlClient {
    /// Connects to the daemon's control socket.
    ///
    /// # Errors
    /// When nothing listens there, or this user may not connect.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (from, to) = UnixStream::connect(path).await?.into_split();
        Ok(Self { reader: BufReader::new(from), writer: to, line: Vec::new() })
    }

    /// Sends the request. The daemon reads one for each connection.
    ///
    /// # Errors
    /// When the daemon hung up.
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.writer.write_all(&line).await
    }

    /// The next line of the answer; `None` after the last one. A wait that is given up loses
    /// nothing: the next call goes on where it stood.
    ///
    /// # Errors
    /// When the connection breaks, a line is longer than 1 MiB, or it is not a [`Response`].
    pub async fn next_response(&mut self) -> io::Result<Option<Response>> {
        loop {
            let available = self.reader.fill_buf().await?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let consumed = end.map_or(available.len(), |at| at + 1);
            if consumed == 0 && self.line.is_empty() {
                return Ok(None);
            }
            if consumed == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the daemon hung up in the middle of a line",
                ));
            }
            if self.line.len() + consumed > LINE_MAX {
                return Err(invalid_data(format!(
                    "the daemon sent a line of more than {LINE_MAX} bytes"
                )));
            }
            self.line.extend(available.iter().take(consumed));
            self.reader.consume(consumed);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                return serde_json::from_slice(&line).map(Some).map_err(|error| {
                    invalid_data(format!("the daemon sent a line that is not an answer: {error}"))
                });
            }
        }
    }
}

fn invalid_data(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::UnixListener;
    use tokio::time::timeout;

    use super::*;
    use crate::control::RefusalCode;

    async fn pair() -> (ControlClient, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = ControlClient::connect(&path).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_no_byte() {
        let (mut client, mut daemon) = pair().await;
        let refused = Response::Refused { code: RefusalCode::Busy, because: "no".to_owned() };
        let line = serde_json::to_string(&refused).unwrap() + "\n";
        let (head, tail) = line.split_at(9);
        daemon.write_all(head.as_bytes()).await.unwrap();
        assert!(timeout(Duration::from_millis(50), client.next_response()).await.is_err());
        daemon.write_all(tail.as_bytes()).await.unwrap();
        assert_eq!(client.next_response().await.unwrap(), Some(refused));
        drop(daemon);
        assert_eq!(client.next_response().await.unwrap(), None);
    }

    #[tokio::test]
    async fn half_a_line_and_too_long_a_line_are_errors() {
        let (mut client, mut daemon) = pair().await;
        daemon.write_all(b"{\"answer\"").await.unwrap();
        drop(daemon);
        let truncated = client.next_response().await.unwrap_err();
        assert_eq!(truncated.kind(), io::ErrorKind::UnexpectedEof);

        let (mut client, mut daemon) = pair().await;
        let sent = tokio::spawn(async move { daemon.write_all(&[b' '; LINE_MAX + 1]).await });
        let long = client.next_response().await.unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);
        drop(client);
        // It may or may not have got rid of the last bytes.
        let _: io::Result<()> = sent.await.unwrap();
    }
}
