//! The proxy on real sockets: what it forwards, what it counts, and what a client sees when a
//! release is drained, cut off or broken.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod address_bounds;
#[path = "../support/async_wait.rs"]
mod async_wait;
mod behind_proxies;
mod client_connections;
mod closing_front;
mod compressed;
mod crash;
mod drain;
mod endpoint;
mod fake_backend;
mod fake_responses;
mod forwarding;
mod handover;
mod handover_drain;
mod http_client;
mod http_sse;
mod http_sse_failures;
mod idle_connections;
mod keep_alive;
mod large_bodies;
mod large_moved;
mod lost;
mod malformed_input;
mod many_sessions;
mod migration;
mod migration_refused;
mod modern;
mod outcomes;
mod ramp;
mod replay;
mod restart;
mod session_ids;
mod session_owner;
mod sessions;
mod shadow_calls;
mod shadow_evidence;
mod streams;
mod switching;
mod unread;
mod whose_fault;

use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;

use async_wait::poll_for;
use futures_util::FutureExt as _;
use rollbackd::clock::Clock;
use rollbackd::config::{Address, Service};
use rollbackd::model::{Counts, Moment, ReleaseNumber};
use rollbackd::proxy::Proxy;

const RELEASE_A: ReleaseNumber = ReleaseNumber(1);
const RELEASE_B: ReleaseNumber = ReleaseNumber(2);
const KEY: [u8; 16] = [7; 16];
/// Held by tests that need or measure much memory, so that they do not measure each other.
static MEMORY_TEST_LOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The settings of the tests, on any free port.
fn test_service(name: &str) -> Service {
    let text = format!(
        "[service.{name}]\nlisten = \"127.0.0.1:0\"\nruntime = \"external\"\n\
         slots = {{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }}\n"
    );
    rollbackd::config::parse("test.toml", &text).unwrap().settings.services.remove(name).unwrap()
}

fn start(service: &Service) -> Proxy {
    Proxy::start(service, KEY, Clock::start(Moment(0))).unwrap()
}

/// A proxy with one release, which has the traffic.
fn proxy_to(upstream: SocketAddr) -> Proxy {
    proxy_with(upstream, |_| ())
}

fn proxy_with(upstream: SocketAddr, change: impl FnOnce(&mut Service)) -> Proxy {
    let mut service = test_service("test");
    change(&mut service);
    let proxy = start(&service);
    proxy.add_release(RELEASE_A, &Address::Tcp(upstream));
    proxy.set_active(RELEASE_A);
    proxy
}

/// Waits until the counters of a release are as wanted.
async fn wait_for_counts(proxy: &Proxy, number: ReleaseNumber, want: Counts) {
    wait_until(
        &format!("{want:?}"),
        || {
            let counts = proxy.counts(number);
            // A test that expects no latencies accepts any number of them.
            let timed = if want.with_latency == 0 { 0 } else { counts.with_latency };
            Counts { with_latency: timed, ..counts } == want
        },
        || format!("{:?}", proxy.counts(number)),
    )
    .await;
}

async fn wait_until(what: &str, mut good: impl FnMut() -> bool, seen: impl Fn() -> String) {
    let held = poll_for(|| ready(good().then_some(()))).await;
    held.unwrap_or_else(|| panic!("waited for {what} in vain; there is {}", seen()));
}

/// Runs a call of the proxy up to where it waits: what it does at once is done.
fn begin<T>(call: impl Future<Output = T>) -> Pin<Box<impl Future<Output = T>>> {
    let mut call = Box::pin(call);
    assert!(call.as_mut().now_or_never().is_none(), "it does not wait");
    call
}
