//! Forward and back, again and again, under traffic: nobody notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rollbackd::config::Address;

use crate::client::{Wire, assert_error, call, messages, request, session};
use crate::upstream::Mcp;
use crate::{A, B, before};

const CLIENTS: u64 = 25;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Seen {
    answers: [AtomicU64; 2],
    stop: AtomicBool,
}

/// Asks 20 times a second on one connection: JSON and events, with a session or without.
async fn client(number: u64, to: SocketAddr, seen: Arc<Seen>) {
    let own = if number.is_multiple_of(2) { session(to).await } else { String::new() };
    let mut wire = Wire::to(to).await;
    let mut tick = tokio::time::interval(PAUSE);
    let mut first = None;
    for id in 0_u64.. {
        tick.tick().await;
        if seen.stop.load(Ordering::Relaxed) {
            break;
        }
        let tool = if (id + number).is_multiple_of(5) { "stream" } else { "echo" };
        let body = call(&id.to_string(), tool, r#"{"ms":30}"#);
        wire.send(request(&body, &own)).await;
        let reply = wire.reply().await;
        let answer = match tool {
            "stream" => messages(&reply.text()).pop().unwrap(),
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
    let (a, b) = (Mcp::start("a").await, Mcp::start("b").await);
    let proxy = before(a.address);
    proxy.add(B, &Address::Tcp(b.address));
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, proxy.local_addr(), Arc::clone(&seen))))
        .collect();
    for round in 0..20 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.route(if round % 2 == 0 { B } else { A });
    }
    seen.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let [on_a, on_b] = [0, 1].map(|at| seen.answers[at].load(Ordering::Relaxed));
    println!("20 switches in 6 s: {on_a} answers of a, {on_b} of b, none failed");
    let total = proxy.counts(A).ok + proxy.counts(B).ok;
    assert_eq!(total, on_a + on_b + CLIENTS.div_ceil(2));
    assert!(on_a > 300 && on_b > 100, "{on_a} {on_b}");
    for number in [A, B] {
        let counts = proxy.counts(number);
        assert_eq!(counts.total(), counts.ok, "{counts:?}");
    }
}

/// Asks as fast as it can until told to stop; how many got a result, and how many our own answer.
async fn hammer(to: SocketAddr, tool: &'static str, seen: Arc<Seen>) -> (u64, u64) {
    let mut wire = Wire::to(to).await;
    let (mut good, mut ours) = (0, 0);
    for id in 0_u64.. {
        if seen.stop.load(Ordering::Relaxed) {
            break;
        }
        wire.send(request(&call(&id.to_string(), tool, r#"{"ms":20}"#), "")).await;
        let reply = wire.reply().await;
        let answer = match tool {
            // Cut before the head, it is our JSON.
            "stream" if reply.header("content-type") == Some("text/event-stream") => {
                messages(&reply.text()).pop().unwrap()
            }
            _ => reply.json(),
        };
        assert_eq!((reply.status, answer["id"].as_u64()), (200, Some(id)), "{answer}");
        if answer.get("result").is_some() {
            good += 1;
        } else {
            assert_error(&answer, id.into(), "rollback");
            ours += 1;
        }
    }
    (good, ours)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_a_cut_meets_is_answered_and_told_in_the_toll() {
    let releases = [(A, Mcp::start("a").await), (B, Mcp::start("b").await)];
    let proxy = before(releases[0].1.address);
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..20)
        .map(|n| if n % 2 == 0 { "wait" } else { "stream" })
        .map(|tool| tokio::spawn(hammer(proxy.local_addr(), tool, Arc::clone(&seen))))
        .collect();
    let mut told = 0;
    for round in 0..10 {
        let (old, new) = (&releases[round % 2], &releases[(round + 1) % 2]);
        proxy.add(new.0, &Address::Tcp(new.1.address));
        tokio::time::sleep(Duration::from_millis(150)).await;
        proxy.route(new.0);
        let toll = proxy.cut(old.0).await;
        assert_eq!((toll.streams, toll.ended), (0, 0));
        told += toll.answered;
    }
    seen.stop.store(true, Ordering::Relaxed);
    let (mut good, mut ours) = (0, 0);
    for client in clients {
        let (results, errors) = client.await.unwrap();
        (good, ours) = (good + results, ours + errors);
    }
    println!("10 cuts under load: {good} results, {ours} answers of ours, {told} told");
    assert!(good > 200 && ours > 20, "{good} {ours}");
    assert_eq!(ours, told);
}
