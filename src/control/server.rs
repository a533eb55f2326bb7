//! The daemon's end of the control socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use crate::control::access;
use crate::control::lines::{LineReader, encode_line};
use crate::control::protocol::{Request, Response};
use crate::model::Actor;

/// Longest request, in bytes.
const REQUEST_MAX: usize = 64 * 1024;
/// Longest time for a client to send its request, and to receive a line of the response.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client and its request.
#[derive(Debug)]
pub struct IncomingRequest {
    /// The client's user and process, from the kernel.
    pub actor: Actor,
    /// The request, or why it is not valid.
    pub request: Result<Request, String>,
    /// Sends the responses.
    pub reply_writer: ReplyWriter,
    /// Completes when the client disconnects.
    pub disconnect: Disconnect,
}

/// Sends responses to a client.
#[derive(Debug)]
pub struct ReplyWriter(OwnedWriteHalf);

/// Detects that a client disconnected. A client that closes its writing end counts as gone.
#[derive(Debug)]
pub struct Disconnect(OwnedReadHalf);

/// Listens on the control socket. Its owner and its group may connect. The group is `rollbackd` if
/// the daemon may set it: as root, or as a member of that group.
///
/// # Errors
/// When the socket cannot be created, or another daemon answers on it.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers on it"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    if let Some(group) = access::readers_gid() {
        // Only root and members of the group may set it; else the socket keeps the daemon's group.
        let _ = std::os::unix::fs::chown(path, None, Some(group));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Reads the request of a client.
///
/// # Errors
/// When the client disconnected, or took too long.
pub async fn accept_request(stream: UnixStream) -> io::Result<IncomingRequest> {
    let peer = stream.peer_cred()?;
    let actor = Actor { uid: peer.uid(), pid: peer.pid().unwrap_or(0), user: None };
    let (reader, writer) = stream.into_split();
    let mut reader = LineReader::new(reader, REQUEST_MAX);
    let request = match tokio::time::timeout(CLIENT_TIMEOUT, reader.next_line()).await? {
        Ok(line) => parse(&line.unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    let disconnect = Disconnect(reader.into_inner());
    Ok(IncomingRequest { actor, request, reply_writer: ReplyWriter(writer), disconnect })
}

fn parse(line: &str) -> Result<Request, String> {
    let request: Request = serde_json::from_str(line).map_err(|error| error.to_string())?;
    request.validate()?;
    Ok(request)
}

impl Disconnect {
    /// Returns when the client disconnects.
    pub async fn wait(self) {
        let mut reader = self.0;
        let mut discarded = [0; 64];
        // A client sends one request; anything after it is ignored.
        while matches!(reader.read(&mut discarded).await, Ok(1..)) {}
    }
}

impl ReplyWriter {
    /// Sends one response.
    ///
    /// # Errors
    /// When the client disconnected, or does not read.
    pub async fn send(&mut self, response: &Response) -> io::Result<()> {
        let line = encode_line(response)?;
        tokio::time::timeout(CLIENT_TIMEOUT, self.0.write_all(&line)).await?
    }
}
