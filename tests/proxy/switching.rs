//! Switches forward and back under traffic: no request fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rollbackd::config::Address;

use crate::fake_backend::FakeMcpServer;
use crate::http_client::{
    RawConnection, assert_error, open_session, request, sse_messages, tool_call,
};
use crate::{RELEASE_A, RELEASE_B, proxy_to, wait_until};

const CLIENTS: u64 = 25;
const CALL_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Default)]
struct ClientStats {
    answers: [AtomicU64; 2],
    stop: AtomicBool,
}

impl ClientStats {
    /// Waits for this many answers from now on.
    async fn wait_for_answers(&self, count: u64) {
        let answers = || self.answers.iter().map(|it| it.load(Ordering::Relaxed)).sum::<u64>();
        let until = answers() + count;
        wait_until("answers", || answers() >= until, || answers().to_string()).await;
    }
}

/// Sends 20 requests a second on one connection: JSON and events, with a session or without.
async fn run_client(number: u64, to: SocketAddr, seen: Arc<ClientStats>) {
    let own = if number.is_multiple_of(2) { open_session(to).await } else { String::new() };
    let mut wire = RawConnection::connect(to).await;
    let mut tick = tokio::time::interval(CALL_INTERVAL);
    let mut first = None;
    for id in 0_u64.. {
        tick.tick().await;
        if seen.stop.load(Ordering::Relaxed) {
            break;
        }
        let tool = if (id + number).is_multiple_of(5) { "stream" } else { "echo" };
        let body = tool_call(&id.to_string(), tool, r#"{"ms":30}"#);
        wire.send(request(&body, &own)).await;
        let reply = wire.read_response().await;
        let answer = match tool {
            "stream" => sse_messages(&reply.text()).pop().unwrap(),
            _ => reply.json(),
        };
        assert_eq!((reply.status, answer["id"].as_u64()), (200, Some(id)), "{answer}");
        let release = answer["result"]["release"].as_str().unwrap_or_else(|| panic!("{answer}"));
        if !own.is_empty() {
            assert_eq!(release, first.get_or_insert_with(|| release.to_owned()));
        }
        seen.answers[usize::from(release == "b")].fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_switches_under_traffic_fail_no_request() {
    let (a, b) = (FakeMcpServer::start("a").await, FakeMcpServer::start("b").await);
    let proxy = proxy_to(a.address);
    proxy.add_release(RELEASE_B, &Address::Tcp(b.address));
    let seen = Arc::new(ClientStats::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(run_client(number, proxy.local_addr(), Arc::clone(&seen))))
        .collect();
    for round in 0..20 {
        seen.wait_for_answers(3 * CLIENTS).await;
        proxy.set_active(if round % 2 == 0 { RELEASE_B } else { RELEASE_A });
    }
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let [on_a, on_b] = [0, 1].map(|at| seen.answers[at].load(Ordering::Relaxed));
    println!("20 switches: {on_a} answers of a, {on_b} of b, none failed");
    let total = proxy.counts(RELEASE_A).ok + proxy.counts(RELEASE_B).ok;
    assert_eq!(total, on_a + on_b + CLIENTS.div_ceil(2));
    assert!(on_a > 300 && on_b > 100, "{on_a} {on_b}");
    for number in [RELEASE_A, RELEASE_B] {
        let counts = proxy.counts(number);
        assert_eq!(counts.total(), counts.ok, "{counts:?}");
    }
}

/// Sends requests until stopped. Returns the number of results, and of errors of the proxy.
async fn send_requests(to: SocketAddr, tool: &'static str, seen: Arc<ClientStats>) -> (u64, u64) {
    let mut wire = RawConnection::connect(to).await;
    let (mut good, mut ours) = (0, 0);
    for id in 0_u64.. {
        if seen.stop.load(Ordering::Relaxed) {
            break;
        }
        wire.send(request(&tool_call(&id.to_string(), tool, r#"{"ms":20}"#), "")).await;
        let reply = wire.read_response().await;
        let answer = match tool {
            // A cut before the head gives an error of the proxy.
            "stream" if reply.header("content-type") == Some("text/event-stream") => {
                sse_messages(&reply.text()).pop().unwrap()
            }
            _ => reply.json(),
        };
        assert_eq!((reply.status, answer["id"].as_u64()), (200, Some(id)), "{answer}");
        if answer.get("result").is_some() {
            good += 1;
            seen.answers[0].fetch_add(1, Ordering::Relaxed);
        } else {
            assert_error(&answer, id.into(), "rollback");
            ours += 1;
        }
    }
    (good, ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_answers_and_counts_every_open_request() {
    let releases = [
        (RELEASE_A, FakeMcpServer::start("a").await),
        (RELEASE_B, FakeMcpServer::start("b").await),
    ];
    let proxy = proxy_to(releases[0].1.address);
    let seen = Arc::new(ClientStats::default());
    let clients: Vec<_> = (0..20)
        .map(|n| if n % 2 == 0 { "wait" } else { "stream" })
        .map(|tool| tokio::spawn(send_requests(proxy.local_addr(), tool, Arc::clone(&seen))))
        .collect();
    let mut told = 0;
    for round in 0..10 {
        let (old, new) = (&releases[round % 2], &releases[(round + 1) % 2]);
        proxy.add_release(new.0, &Address::Tcp(new.1.address));
        // Before a cut, the release in charge has answered, and has open requests.
        seen.wait_for_answers(30).await;
        proxy.set_active(new.0);
        let cost = proxy.cut(old.0).await;
        assert_eq!((cost.streams_closed, cost.sessions_ended), (0, 0));
        told += cost.error_responses;
    }
    seen.stop.store(true, Ordering::Relaxed);
    let (mut good, mut ours) = (0, 0);
    for client in clients {
        let (results, errors) = client.await.unwrap();
        (good, ours) = (good + results, ours + errors);
    }
    println!("10 cuts under load: {good} results, {ours} errors of the proxy, {told} told");
    assert!(good > 200 && ours > 20, "{good} {ours}");
    assert_eq!(ours, told);
}
