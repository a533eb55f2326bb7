//! What a proxy still does for its clients after another one took over.

use std::time::Duration;

use rollbackd::config::{Address, SessionState};
use rollbackd::model::Moment;
use tokio_util::sync::CancellationToken;

use crate::fake_backend::FakeMcpServer;
use crate::handover::{
    DRAIN_TIMEOUT, INITIALIZED, MODERN_HEADERS, ProxyPair, hand_over, start_predecessor,
    start_predecessor_with,
};
use crate::http_client::{RawConnection, open_request, open_session, post, request, tool_call};
use crate::http_sse::{Client as SseClient, get_stream, relative, sse_server};
use crate::outcomes::cancel;
use crate::{RELEASE_A, RELEASE_B, test_service, wait_until};

/// A drain that takes as long as the open requests, and nothing else.
async fn drain(two: &ProxyPair) {
    let (never, soon) = (CancellationToken::new(), Duration::from_millis(100));
    let drained = two.old.drain_connections(soon, &never);
    assert!(tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_ok(), "it waits for them");
}

/// What was cancelled at the new proxy reaches the old one.
async fn pass_on_cancellations(two: &ProxyPair) {
    let cancelled = || two.new.routes_snapshot().unwrap();
    wait_until(
        "the new one knows",
        || cancelled() != two.old.routes_snapshot().unwrap(),
        || format!("{:?}", cancelled()),
    )
    .await;
    two.old.apply_routes(&cancelled()).await;
}

/// Some servers never answer a cancelled call. The client may cancel it at either proxy.
#[tokio::test]
async fn predecessor_does_not_wait_for_cancelled_calls() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let session = open_session(to).await;
    let mut open = Vec::new();
    for id in ["7", "8"] {
        let call = tool_call(id, "wait", r#"{"ms":60000}"#);
        open.push(open_request(to, &call, &session).await);
    }
    wait_until("they are open", || old.load(RELEASE_A, Moment(0)).in_flight == 2, String::new)
        .await;
    post(to, &cancel("7"), &session).await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    post(to, &cancel("8"), &session).await;
    pass_on_cancellations(&two).await;
    drain(&two).await;
}

/// A client may send the cancellation on a connection that it kept: then the old proxy gets it.
#[tokio::test]
async fn successor_learns_what_is_cancelled_at_the_predecessor() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let session = open_session(to).await;
    post(to, INITIALIZED, &session).await;
    let mut kept = RawConnection::connect(to).await;
    kept.send(request(&tool_call("1", "echo", "{}"), &session)).await;
    kept.read_response().await;
    let two = hand_over(dir, old, &[(RELEASE_B, b.address), (RELEASE_A, a.address)]).await;
    let call = tool_call("7", "stream", r#"{"ms":60000}"#);
    let _cancelled = open_request(to, &call, &session).await;
    let in_flight = || two.new.load(RELEASE_A, Moment(0)).in_flight;
    wait_until("it is open", || in_flight() == 1, || in_flight().to_string()).await;
    kept.send(request(&cancel("7"), &session)).await;
    assert_eq!(kept.read_response().await.status, 202);
    wait_until("nothing waits for it", || in_flight() == 0, || in_flight().to_string()).await;
    two.new.set_active(RELEASE_B);
    two.new.migrate_sessions_from(Some(RELEASE_A));
    let reply = post(to, &tool_call("8", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "b", "{}", reply.text());
}

/// The client keeps a connection to the old proxy, and opens a session on one to the new proxy.
#[tokio::test]
async fn predecessor_learns_where_a_session_of_the_successor_has_moved() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let mut kept = RawConnection::connect(to).await;
    kept.send(request(&tool_call("1", "echo", "{}"), MODERN_HEADERS)).await;
    kept.read_response().await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    let session = open_session(to).await;
    post(to, INITIALIZED, &session).await;
    two.new.add_release(RELEASE_B, &Address::Tcp(b.address));
    two.new.set_active(RELEASE_B);
    two.new.migrate_sessions_from(Some(RELEASE_A));
    let reply = post(to, &tool_call("2", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "b", "{}", reply.text());
    two.old.apply_routes(&two.new.routes_snapshot().unwrap()).await;
    kept.send(request(&tool_call("3", "echo", "{}"), &session)).await;
    let reply = kept.read_response().await;
    assert_eq!(reply.json()["result"]["release"], "b", "{}", reply.text());
}

/// Its stream began before the handover, so that no header told the client to leave the connection.
#[tokio::test]
async fn connection_of_a_cancelled_call_serves_until_it_closes() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let session = open_session(to).await;
    let mut call = open_request(to, &tool_call("7", "stream", r#"{"ms":60000}"#), &session).await;
    call.read_head().await;
    call.read_until("progress").await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    let next = async {
        post(to, &cancel("7"), &session).await;
        pass_on_cancellations(&two).await;
        call.read_to_end().await;
        // A call that takes longer than an idle connection stays.
        call.send(request(&tool_call("8", "wait", r#"{"ms":1500}"#), &session)).await;
        call.read_response().await
    };
    let (reply, ()) = tokio::join!(next, drain(&two));
    assert_eq!(reply.json()["result"]["release"], "a", "{}", reply.text());
    assert!(call.is_closed().await);
}

#[tokio::test]
async fn connection_serves_a_call_that_follows_the_last_one() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let mut wire =
        open_request(to, &tool_call("1", "stream", r#"{"ms":1500}"#), MODERN_HEADERS).await;
    wire.read_head().await;
    wire.read_until("progress").await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    let next = async {
        wire.read_to_end().await;
        // As a client that thinks for a moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        wire.send(request(&tool_call("2", "wait", r#"{"ms":1500}"#), MODERN_HEADERS)).await;
        wire.read_response().await
    };
    let (reply, ()) = tokio::join!(next, drain(&two));
    assert_eq!(reply.json()["result"]["release"], "a", "{}", reply.text());
}

/// Some clients have several: one for each call that they cancelled.
#[tokio::test]
async fn connections_of_all_streams_of_a_session_serve_once_these_have_ended() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a.address);
    let to = old.local_addr();
    let session = open_session(to).await;
    post(to, INITIALIZED, &session).await;
    let mut streams = Vec::new();
    for last_event_id in ["", "Last-Event-ID: e1\r\n", "Last-Event-ID: e2\r\n"] {
        let mut stream = RawConnection::connect(to).await;
        let get = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n";
        stream.send(format!("{get}{session}{last_event_id}\r\n")).await;
        assert_eq!(stream.read_head().await.0, 200);
        streams.push(stream);
    }
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    let next = async {
        for (id, stream) in (1..).zip(&mut streams) {
            stream.read_to_end().await;
            stream.send(request(&tool_call(&id.to_string(), "echo", "{}"), &session)).await;
            let reply = stream.read_response().await;
            assert_eq!(reply.json()["result"]["release"], "a", "{id}: {}", reply.text());
        }
    };
    tokio::join!(next, drain(&two));
}

/// The stream of HTTP+SSE is a session: it ends only with the proxy.
#[tokio::test]
async fn connection_whose_stream_ends_with_the_proxy_is_closed_with_it() {
    let a = sse_server("a", relative).await;
    let dir = tempfile::tempdir().unwrap();
    let old = start_predecessor(&dir, a);
    let mut client = SseClient::open(old.local_addr()).await;
    let two = hand_over(dir, old, &[(RELEASE_A, a)]).await;
    let next = async {
        client.stream.read_to_end().await;
        client.stream.send(get_stream("")).await;
        client.stream.read_rest().await
    };
    let (rest, ()) = tokio::join!(next, drain(&two));
    assert_eq!(rest, "", "it gets no answer of a proxy without releases");
}

#[tokio::test]
async fn predecessor_does_not_wait_for_late_answers_to_clients_that_are_gone() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let mut service = test_service("test");
    (service.limits.deadline, service.limits.slow_after) =
        (Duration::from_millis(300), Duration::from_millis(100));
    let old = start_predecessor_with(&dir, a.address, &service);
    let to = old.local_addr();
    let call = tool_call("7", "wait", r#"{"ms":60000}"#);
    let gone: RawConnection = open_request(to, &call, MODERN_HEADERS).await;
    wait_until("it is open", || old.load(RELEASE_A, Moment(0)).in_flight == 1, String::new).await;
    wait_until("it is late", || old.counts(RELEASE_A).server_fault == 1, String::new).await;
    drop(gone);
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    drain(&two).await;
}

/// They cannot move, so a drain of their release would end them.
#[tokio::test]
async fn sessions_that_cannot_move_stay_valid_after_a_handover() {
    let a = FakeMcpServer::start("a").await;
    let dir = tempfile::tempdir().unwrap();
    let mut service = test_service("test");
    service.session_state = SessionState::Hard;
    let old = start_predecessor_with(&dir, a.address, &service);
    let to = old.local_addr();
    let session = open_session(to).await;
    post(to, INITIALIZED, &session).await;
    let two = hand_over(dir, old, &[(RELEASE_A, a.address)]).await;
    two.end_predecessor().await;
    let reply = post(to, &tool_call("1", "echo", "{}"), &session).await;
    assert_eq!(reply.json()["result"]["release"], "a", "{}", reply.text());
    let opened = a.methods().iter().filter(|it| *it == "initialize").count();
    assert_eq!(opened, 1, "it was not opened again");
}
