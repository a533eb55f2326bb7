//! Many sessions at once, half of them listening, while their release is left.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::proxy::Proxy;
use tokio::time::Instant;

use crate::client::{Wire, call, request, session};
use crate::upstream::Mcp;
use crate::{A, B, QUIET, before};

const SESSIONS: u64 = 500;
/// 200 requests a second together.
const PAUSE: Duration = Duration::from_millis(2_500);
const STREAMS_SETTLE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    asked: AtomicU64,
    failed: Mutex<Vec<String>>,
    moved: AtomicU64,
    /// Milliseconds of the slowest answer.
    slowest: AtomicU64,
}

/// Asks on one connection, one request after the other, and counts what is no result.
async fn client(number: u64, proxy: Proxy, mine: String, seen: Arc<Seen>) {
    let mut wire = Wire::to(proxy.local_addr()).await;
    tokio::time::sleep(PAUSE.mul_f64(number as f64 / SESSIONS as f64)).await;
    let (mut tick, mut moved) = (tokio::time::interval(PAUSE), false);
    for id in 0_u64.. {
        tick.tick().await;
        if seen.stop.load(Ordering::Relaxed) {
            return;
        }
        // One in ten is at work for a while, as some are when a release is left.
        let ms = if (id + number).is_multiple_of(10) { 400 } else { 0 };
        let began = Instant::now();
        let body = call(&id.to_string(), "echo", &format!(r#"{{"ms":{ms}}}"#));
        wire.send(request(&body, &mine)).await;
        let reply = wire.reply().await;
        let answer = reply.json();
        let took = began.elapsed().as_millis() as u64 - ms.min(began.elapsed().as_millis() as u64);
        seen.asked.fetch_add(1, Ordering::Relaxed);
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

async fn listen(proxy: &Proxy, mine: &str) -> Wire {
    let get =
        format!("GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{mine}\r\n");
    let mut wire = Wire::to(proxy.local_addr()).await;
    wire.send(&get).await;
    assert_eq!(wire.head().await.0, 200);
    wire
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sessions_and_a_drain_break_and_fail_nothing() {
    let _quiet = QUIET.lock().await;
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let seen = Arc::new(Seen::default());
    let (mut clients, mut streams) = (Vec::new(), Vec::new());
    for number in 0..SESSIONS {
        let mine = session(proxy.local_addr()).await;
        if number.is_multiple_of(2) {
            streams.push(listen(&proxy, &mine).await);
        }
        clients.push(tokio::spawn(client(number, proxy.clone(), mine, Arc::clone(&seen))));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.route(B);
    let began = Instant::now();
    let toll = proxy.drain(A, Duration::from_secs(30)).await;
    let drained = began.elapsed();
    tokio::time::sleep(PAUSE + Duration::from_secs(1)).await;
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
    println!(
        "{SESSIONS} sessions, {} requests, {} failed, {} moved, slowest {} ms over its work, drain \
         {drained:?}: {toll}",
        read(&seen.asked),
        seen.failed.lock().unwrap().len(),
        read(&seen.moved),
        read(&seen.slowest)
    );
    assert_eq!(*seen.failed.lock().unwrap(), Vec::<String>::new());
    assert_eq!(read(&seen.moved), SESSIONS);
    assert_eq!((toll.answered, toll.lost, toll.ended, toll.streams), (0, 0, 0, 0), "{toll}");
    let until = Instant::now() + STREAMS_SETTLE;
    for stream in &mut streams {
        let told = tokio::time::timeout_at(until, stream.until("notifications/tools/list_changed"));
        told.await.unwrap();
    }
    let listening = b.streams.lock().unwrap().iter().filter(|(_, it)| !it.is_closed()).count();
    let opened = b.streams.lock().unwrap().len();
    assert_eq!(listening as u64, SESSIONS / 2, "of {opened}: each stream goes on at the other one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_sessions_and_a_cut_of_what_hangs_answer_all_at_once() {
    let _quiet = QUIET.lock().await;
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let mut open = Vec::new();
    for number in 0..SESSIONS {
        let mine = session(proxy.local_addr()).await;
        let tool = if number.is_multiple_of(2) { "wait" } else { "stream" };
        let body = call(&number.to_string(), tool, r#"{"ms":60000}"#);
        open.push((crate::client::open(proxy.local_addr(), &body, &mine).await, mine));
    }
    crate::eventually(
        "open",
        || proxy.load(A, rollbackd::model::Moment(0)).in_flight == SESSIONS,
        String::new,
    )
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    proxy.route(B);
    let toll = proxy.cut(A).await;
    let mut answered = Vec::new();
    for (wire, _) in &mut open {
        let reply = wire.reply().await;
        answered.push(reply.text().contains("-32603"));
    }
    println!("{SESSIONS} open requests answered {:?} after the cut: {toll}", began.elapsed());
    assert!(answered.into_iter().all(|it| it));
    assert_eq!((toll.answered, toll.ended), (SESSIONS, 0), "{toll}");
    let began = Instant::now();
    for (n, (_, mine)) in open.iter().enumerate() {
        let body = call(&n.to_string(), "echo", "{}");
        let reply = crate::client::post(proxy.local_addr(), &body, mine).await;
        assert_eq!(reply.json()["result"]["release"], "b");
    }
    println!("{SESSIONS} sessions moved one by one in {:?}", began.elapsed());
}
