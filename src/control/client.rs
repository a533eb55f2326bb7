//! The client's end of the control socket.

use std::io;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::control::lines::{LineReader, encode_line};
use crate::control::protocol::{Request, Response};

/// Longest line of a response, in bytes.
const LINE_MAX: usize = 1024 * 1024;

/// One connection to the daemon. It has no timeouts: the caller limits its waits.
#[derive(Debug)]
pub struct ControlClient {
    reader: LineReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl ControlClient {
    /// Connects to the daemon's control socket.
    ///
    /// # Errors
    /// When nothing listens there, or this user may not connect.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (reader, writer) = UnixStream::connect(path).await?.into_split();
        Ok(Self { reader: LineReader::new(reader, LINE_MAX), writer })
    }

    /// Sends the request. The daemon reads one for each connection.
    ///
    /// # Errors
    /// When the daemon closed the connection.
    pub async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.writer.write_all(&encode_line(request)?).await
    }

    /// The next response; `None` after the last one. It is safe to drop the future: the next call
    /// continues with the same line.
    ///
    /// # Errors
    /// When the connection breaks, a line is longer than 1 MiB, or it is not a [`Response`].
    pub async fn next_response(&mut self) -> io::Result<Option<Response>> {
        let Some(line) = self.reader.next_line().await? else { return Ok(None) };
        serde_json::from_str(&line).map(Some).map_err(|error| {
            if error.is_eof() {
                let message = "the daemon closed the connection in the middle of a line";
                return io::Error::new(io::ErrorKind::UnexpectedEof, message);
            }
            let message = format!("the daemon sent a line that is not a response: {error}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })
    }
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
    async fn a_cancelled_wait_loses_no_byte() {
        let (mut client, mut daemon) = pair().await;
        let refused =
            Response::Refused { code: RefusalCode::Busy, because: "no".to_owned(), waiver: None };
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
    async fn an_incomplete_line_and_a_long_line_are_errors() {
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
        // The daemon may or may not have sent the last bytes.
        let _: io::Result<()> = sent.await.unwrap();
    }
}
