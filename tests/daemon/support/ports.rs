use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range of ephemeral ports: no connection takes the port before the daemon binds it.
const PORT_FIRST: u16 = 11_000;
const PORT_COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that no process uses, and that no other test of this run receives.
pub(crate) fn free_port() -> u16 {
    // Two runs at once begin at different places.
    let first = u16::try_from(std::process::id() % 191).unwrap() * 100;
    for _ in 0..PORT_COUNT {
        let at = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORT_FIRST + (first + at) % PORT_COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
