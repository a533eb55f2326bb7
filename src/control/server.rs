//! The daemon's end of the control socket.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::{Request, Response, access};
use crate::model::Actor;

/// Longest request.
const REQUEST_MAX: u64 = 64 * 1024;
/// How long a client may take over its request, and over taking a line of the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// One client, whose request was read.
#[derive(Debug)]
pub struct IncomingRequest {
    /// Who it is, as the kernel tells.
    pub actor: Actor,
    /// What it asks; or why that can not be told.
    pub request: Result<Request, String>,
    /// Where the answer goes.
    pub reply_writer: ReplyWriter,
    /// Tells when it goes away.
    pub disconnect: Disconnect,
}

/// The way back to a client.
#[derive(Debug)]
pub struct ReplyWriter(OwnedWriteHalf);

/// What shows that a client went away. One that closes its writing end is taken to have left.
#[derive(Debug)]
pub struct Disconnect(Take<OwnedReadHalf>);

/// Listens on the control socket. Its owner and its group may connect: the group `rollbackd`, where
/// the daemon may give it away, or runs as that group.
///
/// # Errors
/// When the socket can not be made, or another daemon answers on it.
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
        // Not allowed unless root, or in that group: then it stays with our own group.
        let _ = std::os::unix::fs::chown(path, None, Some(group));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Reads the one request of a client.
///
/// # Errors
/// When the client left, or took too long.
pub async fn accept_request(stream: UnixStream) -> io::Result<IncomingRequest> {
    let peer = stream.peer_cred()?;
    let actor = Actor { uid: peer.uid(), pid: peer.pid().unwrap_or(0) };
    let (reader, writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(REQUEST_MAX));
    tokio::time::timeout(CLIENT_TIMEOUT, reader.read_until(b'\n', &mut line)).await??;
    let request = parse(&line);
    let disconnect = Disconnect(reader.into_inner());
    Ok(IncomingRequest { actor, request, reply_writer: ReplyWriter(writer), disconnect })
}

fn parse(line: &[u8]) -> Result<Request, String> {
    if !line.ends_with(b"\n") && u64::try_from(line.len()) == Ok(REQUEST_MAX) {
        return Err(format!("it is longer than {REQUEST_MAX} bytes"));
    }
    let request: Request = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    request.validate()?;
    Ok(request)
}

impl Disconnect {
    /// Returns when the client is gone.
    pub async fn wait(self) {
        let mut reader = self.0.into_inner();
        let mut discarded = [0; 64];
        // It has nothing more to say; what it says is not for us.
        while matches!(reader.read(&mut discarded).await, Ok(1..)) {}
    }
}

impl ReplyWriter {
    /// Sends one line.
    ///
    /// # Errors
    /// When the client left, or does not read.
    pub async fn send(&mut self, response: &Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(response)?;
        line.push(b'\n');
        tokio::time::timeout(CLIENT_TIMEOUT, self.0.write_all(&line)).await?
    }
}
