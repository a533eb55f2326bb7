use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::exchange::Fault;
use crate::config::Address;
use crate::model::Reply;

/// Connects, and hangs up.
pub(super) async fn ask(address: &Address) -> Reply {
    let connected: io::Result<()> = match address {
        Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    };
    match connected {
        Ok(()) => Reply::Ok,
        Err(error) => Fault::of_io(&error).reply(),
    }
}
