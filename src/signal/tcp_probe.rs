use std::io;

use tokio::net::{TcpStream, UnixStream};

use crate::config::Address;
use crate::model::ProbeResult;
use crate::signal::http_client::ProbeError;

/// Connects and disconnects.
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
