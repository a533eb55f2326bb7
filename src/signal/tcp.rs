use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::exchange::ProbeError;
use crate::config::Address;
use crate::model::ProbeResult;

/// Connects, and hangs up.
pub(super) async fn probe(address: &Address) -> ProbeResult {
    let connected: io::Result<()> = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    };
    match connected {
        Ok(()) => ProbeResult::Ok,
        Err(error) => ProbeError::from_io(&error).to_reply(),
    }
}
