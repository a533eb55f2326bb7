//! Splitting a stream into events: no byte is lost, added or moved, however the stream is cut.
#![no_main]

#[path = "../../src/mcp/lenient_json.rs"]
mod lenient_json;
#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../../src/mcp/sse_splitter.rs"]
mod sse_splitter;

use libfuzzer_sys::fuzz_target;
use sse_splitter::{SseEvent, SseSplitter};

/// The events of a stream that arrives in these chunks, and all of its bytes.
fn split(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut splitter, mut events, mut all) = (SseSplitter::default(), Vec::new(), Vec::new());
    for chunk in chunks {
        splitter.feed(chunk, |event| match event {
            SseEvent::Whole(bytes) => {
                all.extend_from_slice(&bytes);
                events.push(bytes);
            }
            SseEvent::Fragment(bytes) => all.extend(bytes),
        });
    }
    all.extend(splitter.take_rest());
    (events, all)
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (cut, bytes) = input;
    let (a, b) = bytes.split_at(usize::from(cut).min(bytes.len()));
    let (whole, all) = split(&[&bytes]);
    assert_eq!(all, bytes);
    assert_eq!(split(&[a, b]), (whole.clone(), all));
    for event in &whole {
        let _ = sse_splitter::fields(event).count();
        let _ = sse_splitter::message(event);
    }
});
