//! A front of a release that closes each connection after one exchange, without saying so.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Each connection to it carries one request; the next one meets its end, without an answer.
pub(crate) async fn closing_front(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = carry_one(client, to).await;
            });
        }
    });
    address
}

/// Requests and answers of these tests are small: each comes in one piece.
async fn carry_one(mut client: TcpStream, to: SocketAddr) -> std::io::Result<()> {
    let mut release = TcpStream::connect(to).await?;
    let mut bytes = vec![0; 64 * 1024];
    let n = client.read(&mut bytes).await?;
    release.write_all(&bytes[..n]).await?;
    let n = release.read(&mut bytes).await?;
    client.write_all(&bytes[..n]).await?;
    client.read(&mut bytes).await.map(drop)
}
