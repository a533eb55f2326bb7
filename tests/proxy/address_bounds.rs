//! What one client address may hold, and how slow a client may be.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rollbackd::config::{Address, Service};
use rollbackd::model::{Bound, Counts, Moment};
use rollbackd::proxy::Proxy;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::async_wait::wait_for;
use crate::fake_backend::{FakeMcpServer, SSE_HEAD, read_request, scripted};
use crate::http_client::{
    HttpResponse, INITIALIZE, RawConnection, open_request, open_session, post, request, tool_call,
};
use crate::{RELEASE_A, proxy_with, start, wait_until};

const WAIT: &str = r#"{"ms":3000}"#;

/// A service that no proxy is in front of.
fn exposed(change: impl FnOnce(&mut Service)) -> Service {
    let text = "[service.test]\nlisten = \"127.0.0.1:0\"\nruntime = \"external\"\n\
                trusted_proxies = []\n\
                slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }\n";
    let mut settings = rollbackd::config::parse("test.toml", text).unwrap().settings;
    let mut service = settings.services.remove("test").unwrap();
    change(&mut service);
    service
}

async fn start_exposed(change: impl FnOnce(&mut Service)) -> Proxy {
    let proxy = start(&exposed(change));
    proxy.add_release(RELEASE_A, &Address::Tcp(FakeMcpServer::start("a").await.address));
    proxy.set_active(RELEASE_A);
    proxy
}

/// A connection from another address of this host.
async fn connect_from(last: u8, to: SocketAddr) -> RawConnection {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    RawConnection(tokio::io::BufReader::new(socket.connect(to).await.unwrap()))
}

async fn call_from(last: u8, to: SocketAddr) -> HttpResponse {
    let mut client = connect_from(last, to).await;
    client.send(request(&tool_call("1", "echo", "{}"), "")).await;
    client.read_response().await
}

fn assert_refused(reply: &HttpResponse, proxy: &Proxy, requests: u64) {
    assert_eq!(reply.status, 429, "{reply:?}");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(proxy.counts(RELEASE_A), Counts { ok: requests, ..proxy.counts(RELEASE_A) });
    assert_eq!(proxy.counts(RELEASE_A).total(), requests);
}

#[tokio::test]
async fn an_address_that_has_all_its_connections_in_use_is_refused_and_others_are_not() {
    let proxy = start_exposed(|it| it.limits.address_connections_max = 2).await;
    let to = proxy.local_addr();
    let busy = [open_request(to, &tool_call("1", "wait", WAIT), "").await, {
        open_request(to, &tool_call("2", "wait", WAIT), "").await
    }];
    let open = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("two are open", || open() == 2, || open().to_string()).await;
    let mut third = open_request(to, &tool_call("3", "echo", "{}"), "").await;
    let reply = third.read_response().await;
    assert_refused(&reply, &proxy, 0);
    assert!(third.is_closed().await);
    assert_eq!(call_from(2, to).await.status, 200);
    let near = proxy.near_bounds();
    assert_eq!(near.iter().map(|it| it.bound).collect::<Vec<_>>(), [Bound::ConnectionsPerAddress]);
    assert_eq!(near[0].address.as_deref(), Some("127.0.0.1"));
    for mut client in busy {
        assert_eq!(client.read_response().await.status, 200);
    }
    assert_eq!(post(to, &tool_call("4", "echo", "{}"), "").await.status, 200);
}

/// Many users behind a proxy that is not named in `trusted_proxies` have one address.
#[tokio::test]
async fn a_session_has_a_request_although_others_use_all_connections_of_its_address() {
    let proxy = start_exposed(|it| it.limits.address_connections_max = 2).await;
    let to = proxy.local_addr();
    let [greedy, honest] = [open_session(to).await, open_session(to).await];
    let mut busy = Vec::new();
    for id in ["1", "2"] {
        busy.push(open_request(to, &tool_call(id, "wait", WAIT), &greedy).await);
    }
    let open = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("two are open", || open() == 2, || open().to_string()).await;
    assert_eq!(post(to, &tool_call("3", "echo", "{}"), "").await.status, 429);
    // Another request than the first must not take more places.
    let mut beyond = open_request(to, &tool_call("4", "wait", WAIT), &greedy).await;
    wait_until("three are open", || open() == 3, || open().to_string()).await;
    assert_eq!(post(to, &tool_call("5", "echo", "{}"), &greedy).await.status, 429);
    assert_eq!(post(to, &tool_call("6", "echo", "{}"), &honest).await.status, 200);
    for client in busy.iter_mut().chain([&mut beyond]) {
        assert_eq!(client.read_response().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_of_its_body_makes_room() {
    let proxy = start_exposed(|it| it.limits.address_connections_max = 3).await;
    let to = proxy.local_addr();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{";
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = RawConnection::connect(to).await;
        client.send(head).await;
        slow.push(client);
    }
    // A client that waits for the release owes nothing, however long that takes.
    let mut waits = open_request(to, &tool_call("1", "wait", r#"{"ms":8000}"#), "").await;
    let open = || proxy.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("it is open", || open() == 1, || open().to_string()).await;
    let served = || async {
        (post(to, &tool_call("2", "echo", "{}"), "").await.status == 200).then_some(())
    };
    wait_for("a place", served).await;
    assert!(slow[0].is_closed().await);
    assert_eq!(waits.read_response().await.status, 200);
    let counts = proxy.counts(RELEASE_A);
    assert_eq!((counts.ok, counts.total()), (2, 2), "{counts:?}");
}

#[tokio::test]
async fn the_longest_idle_connection_of_an_address_makes_room() {
    let proxy = start_exposed(|it| it.limits.address_connections_max = 2).await;
    let to = proxy.local_addr();
    let mut others = connect_from(2, to).await;
    others.send(request(&tool_call("1", "echo", "{}"), "")).await;
    assert_eq!(others.read_response().await.status, 200);
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut client = RawConnection::connect(to).await;
        client.send(request(&tool_call("1", "echo", "{}"), "")).await;
        assert_eq!(client.read_response().await.status, 200);
        idle.push(client);
    }
    let served = || async {
        (post(to, &tool_call("2", "echo", "{}"), "").await.status == 200).then_some(())
    };
    // A connection that is idle for less than a second may just carry a request.
    wait_for("a place", served).await;
    assert!(idle[0].is_closed().await);
    for client in [&mut idle[1], &mut others] {
        client.send(request(&tool_call("3", "echo", "{}"), "")).await;
        assert_eq!(client.read_response().await.status, 200);
    }
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_count_by_their_open_requests() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_with(server.address, |it| it.limits.address_connections_max = 1);
    let to = proxy.local_addr();
    let client = |number: u8| format!("X-Forwarded-For: 192.0.2.{number}\r\n");
    let mut busy = open_request(to, &tool_call("1", "wait", WAIT), &client(1)).await;
    let mut stream = open_request(to, &tool_call("1", "stream", WAIT), &client(2)).await;
    stream.read_head().await;
    for number in [1, 2] {
        let refused = post(to, &tool_call("2", "echo", "{}"), &client(number)).await;
        assert_refused(&refused, &proxy, 0);
    }
    assert_eq!(post(to, &tool_call("3", "echo", "{}"), &client(3)).await.status, 200);
    // The front itself has no bound, and names no client here.
    assert_eq!(post(to, &tool_call("4", "echo", "{}"), "").await.status, 200);
    assert_eq!(busy.read_response().await.status, 200);
    assert_eq!(post(to, &tool_call("5", "echo", "{}"), &client(1)).await.status, 200);
    stream.read_to_end().await;
    let served = || async {
        (post(to, &tool_call("6", "echo", "{}"), &client(2)).await.status == 200).then_some(())
    };
    wait_for("a place", served).await;
}

#[tokio::test]
async fn an_address_opens_a_limited_number_of_sessions_a_minute() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_with(server.address, |it| it.limits.address_sessions_max = 3);
    let to = proxy.local_addr();
    let of = |number: u8| format!("X-Forwarded-For: 192.0.2.{number}\r\n");
    for _ in 0..3 {
        assert_eq!(post(to, INITIALIZE, &of(1)).await.status, 200);
    }
    let refused = post(to, INITIALIZE, &of(1)).await;
    assert_refused(&refused, &proxy, 3);
    assert_eq!(refused.json()["id"], 0);
    assert_eq!(refused.json()["error"]["data"]["retryable"], true);
    // The same with a body that is too large to be read first.
    let pad = format!(r#"{{"_x":"{}","#, "x".repeat(100_000));
    let large = INITIALIZE.replacen('{', &pad, 1);
    assert_eq!(post(to, &large, &of(1)).await.status, 429);
    assert_eq!(post(to, INITIALIZE, &of(2)).await.status, 200);
    assert_eq!(post(to, INITIALIZE, "").await.status, 200);
    assert_eq!(post(to, &tool_call("1", "echo", "{}"), &of(1)).await.status, 200);
    assert!(proxy.near_bounds().iter().any(|it| it.bound == Bound::NewSessionsPerAddress));
}

/// A release whose answer is large.
async fn large_answer(bytes: usize) -> SocketAddr {
    scripted(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(SSE_HEAD.as_bytes()).await;
        let piece = format!(": {}\n\n", "x".repeat(1020));
        for _ in 0..bytes / piece.len() {
            if stream.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
        }
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let _ = stream.write_all(format!("data: {answer}\n\n").as_bytes()).await;
    })
    .await
}

/// Reads an answer with pauses, this much at a time.
async fn read_slowly(proxy: &Proxy, piece: usize, pause: Duration, until: impl Fn() -> bool) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(proxy.local_addr()).await.unwrap();
    client.write_all(request(&tool_call("1", "echo", "{}"), "").as_bytes()).await.unwrap();
    let mut buffer = vec![0; piece];
    while !until() && matches!(client.read(&mut buffer).await, Ok(1..)) {
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_read_too_slowly_ends_and_is_no_fault() {
    let proxy = proxy_with(large_answer(16 << 20).await, |it| {
        it.limits.unread_timeout = Duration::from_secs(1);
        it.limits.min_rate = 1 << 20;
    });
    let began = || proxy.load(RELEASE_A, Moment(0)).in_flight > 0;
    let has_begun = std::cell::Cell::new(false);
    let ended = || {
        has_begun.set(has_begun.get() || began());
        has_begun.get() && !began()
    };
    read_slowly(&proxy, 4096, Duration::from_millis(40), ended).await;
    let counts = proxy.counts(RELEASE_A);
    assert_eq!((counts.total(), counts.neutral), (1, 1), "{counts:?}");
}
