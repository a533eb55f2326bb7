//! Reading server-sent events as they pass: the same result however they are cut.
#![no_main]

#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../../src/mcp/message.rs"]
mod message;
#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../../src/mcp/scan.rs"]
mod scan;
#[path = "../../src/mcp/content.rs"]
mod content;
#[path = "../../src/mcp/scan_keys.rs"]
mod scan_keys;
#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../../src/mcp/sse.rs"]
mod sse;

use libfuzzer_sys::fuzz_target;

fn read(chunks: &[&[u8]]) -> (Vec<message::Message>, bool, bool) {
    let (mut events, mut found) = (sse::SseReader::new(), Vec::new());
    chunks.iter().for_each(|chunk| events.feed(chunk, |message| found.push(message)));
    (found, events.at_event_boundary(), events.is_resumable())
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (cut, bytes) = input;
    let (a, b) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[a, b]), read(&[&bytes]));
});
