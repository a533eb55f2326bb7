//! What holds for the proxy as a whole.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::clock::Clock;
use crate::config::Address;
use crate::model::{Moment, ReleaseNumber};
use crate::proxy::{CUT_TIMEOUT, Proxy};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 36\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}";

async fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn a_stateless_post_loads_the_view_once_and_once_per_attempt() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(backend.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = backend.accept().await.unwrap();
        loop {
            read_until(&mut stream, b"\"ping\"}").await;
            stream.write_all(RESPONSE).await.unwrap();
        }
    });
    let text = include_str!("../../config.toml.example");
    let services = crate::config::parse("config.toml.example", text).unwrap().settings.services;
    let mut service = services.into_values().next().unwrap();
    service.listen = ([127, 0, 0, 1], 0).into();
    let proxy = Proxy::start(&service, [7; 16], Clock::start(Moment(0))).unwrap();
    proxy.add_release(ReleaseNumber(1), &address);
    assert!(proxy.set_active(ReleaseNumber(1)));
    let mut client = TcpStream::connect(proxy.local_addr()).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let (path, length) = (&service.path, body.len());
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let loads = || proxy.state.router.view.loads();
    for request_number in 0..3 {
        let before = loads();
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut client, b"\"result\":{}}").await;
        // Once for the checks before the body is read, and once for the attempt. The first request
        // opens the connection, whose limits are loaded once more.
        assert_eq!(loads() - before, if request_number == 0 { 3 } else { 2 });
    }
}

#[test]
fn a_cut_ends_before_the_state_machine_retries() {
    let text = include_str!("../../config.toml.example");
    let checked = crate::config::parse("config.toml.example", text).unwrap();
    for service in checked.settings.services.values() {
        let retry_interval = service.policy.retry_interval;
        assert!(CUT_TIMEOUT < retry_interval, "{retry_interval:?}");
    }
}
