//! Many sessions at once, half of them with a stream, while their release is drained.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::proxy::Proxy;
use tokio::time::Instant;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{RawConnection, open_session, request, tool_call};
use crate::{MEMORY_TEST_LOCK, RELEASE_A, RELEASE_B, proxy_to, wait_until};

const SESSIONS: u64 = 500;
/// 200 requests a second together.
const CALL_INTERVAL: Duration = Duration::from_millis(2_500);
const STREAMS_SETTLE_MAX: Duration = Duration::from_secs(5);

#[derive(Default)]
struct ClientStats {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: Mutex<Vec<String>>,
    moved: AtomicU64,
    /// Milliseconds of the slowest answer.
    slowest: AtomicU64,
}

/// Sends one request after the other on a connection, and counts failures.
async fn run_client(number: u64, proxy: Proxy, mine: String, seen: Arc<ClientStats>) {
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    // The clients do not call all at once.
    tokio::time::sleep(CALL_INTERVAL.mul_f64(number as f64 / SESSIONS as f64)).await;
    let (mut tick, mut moved) = (tokio::time::interval(CALL_INTERVAL), false);
    for id in 0_u64.. {
        tick.tick().await;
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        // One in ten takes a while, so that some are in flight during the drain.
        let ms = if (id + number).is_multiple_of(10) { 400 } else { 0 };
        let began = Instant::now();
        let body = tool_call(&id.to_string(), "echo", &format!(r#"{{"ms":{ms}}}"#));
        wire.send(request(&body, &mine)).await;
        let reply = wire.read_response().await;
        let answer = reply.json();
        let took = began.elapsed().as_millis() as u64 - ms.min(began.elapsed().as_millis() as u64);
        seen.requests.fetch_add(1, Ordering::Relaxed);
        seen.slowest.fetch_max(took, Ordering::Relaxed);
        match answer["result"]["release"].as_str() {
            Some("b") if !moved => {
                moved = true;
                seen.moved.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => (),
            None => {
                seen.failed.lock().unwrap().push(format!("{} {answer}", reply.status));
            }
        }
    }
}

async fn open_get_stream(proxy: &Proxy, mine: &str) -> RawConnection {
    let get =
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n");
    let mut wire = RawConnection::connect(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.read_head().await.0, 200);
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_of_five_hundred_sessions_fails_nothing() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let seen = Arc::new(ClientStats::default());
    let (mut clients, mut streams) = (Vec::new(), Vec::new());
    for number in 0..SESSIONS {
        let mine = open_session(proxy.local_addr()).await;
        if number.is_multiple_of(2) {
            streams.push(open_get_stream(&proxy, &mine).await);
        }
        clients.push(tokio::spawn(run_client(number, proxy.clone(), mine, Arc::clone(&seen))));
    }
    let requests = || seen.requests.load(Ordering::Relaxed);
    wait_until("each client has called", || requests() >= 2 * SESSIONS, String::new).await;
    proxy.set_active(RELEASE_B);
    let began = Instant::now();
    let cost = proxy.drain(RELEASE_A, Duration::from_secs(30)).await;
    let drained = began.elapsed();
    let moved = || seen.moved.load(Ordering::Relaxed);
    wait_until("each has called again", || moved() == SESSIONS, || moved().to_string()).await;
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    println!(
        "{SESSIONS} sessions, {} requests, {} failed, {} moved, slowest {} ms over its work, drain \
         {drained:?}: {cost}",
        read(&seen.requests),
        seen.failed.lock().unwrap().len(),
        read(&seen.moved),
        read(&seen.slowest)
    );
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    assert_eq!(read(&seen.moved), SESSIONS);
    assert_eq!(
        (cost.error_responses, cost.responses_lost, cost.sessions_ended, cost.streams_closed),
        (0, 0, 0, 0),
        "{cost}"
    );
    let until = Instant::now() + STREAMS_SETTLE_MAX;
    for stream in &mut streams {
        let told =
            tokio::time::timeout_at(until, stream.read_until("notifications/tools/list_changed"));
        told.await.unwrap();
    }
    let listening = b.streams.lock().unwrap().iter().filter(|(_, it)| !it.is_closed()).count();
    let opened = b.streams.lock().unwrap().len();
    assert_eq!(
        listening as u64,
        SESSIONS / 2,
        "of {opened}: each stream continues on the other release"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_of_five_hundred_hanging_sessions_answers_all() {
    let _quiet = MEMORY_TEST_LOCK.lock().await;
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let mut open = Vec::new();
    for number in 0..SESSIONS {
        let mine = open_session(proxy.local_addr()).await;
        let tool = if number.is_multiple_of(2) { "wait" } else { "stream" };
        let body = tool_call(&number.to_string(), tool, r#"{"ms":60000}"#);
        open.push((crate::http_client::open_request(proxy.local_addr(), &body, &mine).await, mine));
    }
    wait_until(
        "open",
        || proxy.load(RELEASE_A, rollbackd::model::Moment(0)).in_flight == SESSIONS,
        String::new,
    )
    .await;
    a.wait_for_requests(2 * SESSIONS as usize).await;
    for (wire, _) in open.iter_mut().skip(1).step_by(2) {
        wire.wait_for_response().await;
    }
    let began = Instant::now();
    proxy.set_active(RELEASE_B);
    let cost = proxy.cut(RELEASE_A).await;
    let mut answered = Vec::new();
    for (wire, _) in &mut open {
        let reply = wire.read_response().await;
        answered.push(reply.text().contains("-32603"));
    }
    println!("{SESSIONS} open requests answered {:?} after the cut: {cost}", began.elapsed());
    assert!(answered.into_iter().all(|it| it));
    assert_eq!((cost.error_responses, cost.sessions_ended), (SESSIONS, 0), "{cost}");
    let began = Instant::now();
    for (n, (_, mine)) in open.iter().enumerate() {
        let body = tool_call(&n.to_string(), "echo", "{}");
        let reply = crate::http_client::post(proxy.local_addr(), &body, mine).await;
        assert_eq!(reply.json()["result"]["release"], "b");
    }
    println!("{SESSIONS} sessions moved one by one in {:?}", began.elapsed());
}
