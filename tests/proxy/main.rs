//! The proxy on real sockets: what passes, what is counted, and what a client sees when a release
//! is left or misbehaves.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod abuse;
mod bodies;
mod client;
mod crowd;
mod leaving;
mod lost;
mod modern;
mod moving;
mod multitude;
mod outcomes;
mod overlap;
mod passing;
mod refusing;
mod remembering;
mod sessions;
mod shadow;
mod streams;
mod switching;
mod unread;
mod upstream;

use std::net::SocketAddr;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::config::{Address, Service};
use rollbackd::model::{Counts, Moment, Number};
use rollbackd::proxy::Proxy;

const A: Number = Number(1);
const B: Number = Number(2);
const KEY: [u8; 16] = [7; 16];
/// Held by tests that need or measure much memory, so that they do not measure each other.
static QUIET: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The settings of the tests, on any free port.
fn service(name: &str) -> Service {
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
fn before(upstream: SocketAddr) -> Proxy {
    with(upstream, |_| ())
}

fn with(upstream: SocketAddr, change: impl FnOnce(&mut Service)) -> Proxy {
    let mut service = service("test");
    change(&mut service);
    let proxy = start(&service);
    proxy.add(A, &Address::Tcp(upstream));
    proxy.route(A);
    proxy
}

/// Waits until the counters of a release are as wanted.
async fn counted(proxy: &Proxy, number: Number, want: Counts) {
    eventually(
        &format!("{want:?}"),
        || {
            let counts = proxy.counts(number);
            // Who does not ask for times has all of them.
            let timed = if want.timed == 0 { 0 } else { counts.timed };
            Counts { timed, ..counts } == want
        },
        || format!("{:?}", proxy.counts(number)),
    )
    .await;
}

async fn eventually(what: &str, mut good: impl FnMut() -> bool, seen: impl Fn() -> String) {
    for _ in 0..500 {
        if good() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 10 s for {what}; there is {}", seen());
}
