//! What the proxy's own reading costs on the request path, beside a full JSON parse.
//!
//! `cargo bench --bench hot_path`. The machine's noise is in every row alike: compare rows of one run.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark times and prints"
)]

#[expect(dead_code, reason = "its tests use more of it")]
#[path = "../src/mcp/content.rs"]
mod content;
#[expect(dead_code, unused_imports, reason = "the proxy uses more of it")]
#[path = "../src/mcp/message.rs"]
mod message;
#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../src/mcp/scan.rs"]
mod scan;
#[path = "../src/mcp/scan_keys.rs"]
mod scan_keys;
#[expect(dead_code, unreachable_pub, reason = "the proxy uses more of it")]
#[path = "../src/proxy/session/id.rs"]
mod session;
#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../src/mcp/sse.rs"]
mod sse;

use std::hint::black_box;
use std::time::Instant;

use rollbackd::model;

const ROUNDS: u32 = 200_000;

fn main() {
    let text = "x".repeat(500);
    let request = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"{text}"}}}}}}"#
    );
    let answer = format!(
        r#"{{"result":{{"content":[{{"type":"text","text":"{text}"}}],"isError":false}},"jsonrpc":"2.0","id":7}}"#
    );
    let event = format!("event: message\ndata: {answer}\n\n");
    let sessions = session::SessionIdCodec::new("weather", [7; 16]);
    let minted =
        sessions.mint(model::ReleaseNumber(3), "0b5a2c1e-6d3f-4c39-9d1b-5e1d2a3b4c5d", |_| true);
    let (id, _) = minted.unwrap_or_else(|| panic!("no random numbers"));
    let judged = std::cell::RefCell::new(judge());

    println!("{:<44} {:>9}", "about 600 bytes each", "ns");
    measure("scan a request", || scan_body(request.as_bytes()));
    measure("scan an answer", || scan_body(answer.as_bytes()));
    measure("scan an answer inside an event", || {
        let mut events = sse::SseReader::new();
        events.feed(black_box(event.as_bytes()), |message| _ = black_box(message));
    });
    measure("peer: serde_json::Value of the request", || {
        _ = black_box(serde_json::from_str::<serde_json::Value>(black_box(&request)));
    });
    measure("read a session id", || _ = black_box(sessions.decode(black_box(&id))));
    measure("judge a block, one objective", || {
        judged.borrow_mut().update(
            model::Moment(1),
            rollbackd::judge::BLOCK_MS,
            black_box(25),
            black_box(0),
        );
    });
}

fn judge() -> rollbackd::judge::e_process::EProcess {
    let limits = rollbackd::judge::SloSettings {
        objectives: Vec::new(),
        ..rollbackd::judge::SloSettings::default()
    };
    rollbackd::judge::e_process::EProcess::new(0.005, 1e-3, &limits)
}

fn scan_body(bytes: &[u8]) {
    let mut scan = scan::MessageScanner::default();
    scan.feed(black_box(bytes), |message| _ = black_box(message));
}

/// The fastest of five runs.
fn measure(name: &str, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begun = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        best = best.min(begun.elapsed().as_secs_f64() / f64::from(ROUNDS));
    }
    println!("{name:<44} {:>9.0}", 1e9 * best);
}
