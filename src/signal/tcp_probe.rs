use tokio::net::{TcpStream, UnixStream};

use crate::config::Address;
use crate::signal::http_client::ProbeError;

/// Connects and disconnects.
pub(super) async fn probe(address: &Address) -> Result<(), ProbeError> {
    let connected = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    };
    connected.map_err(|error| ProbeError::from_io(&error))
}
