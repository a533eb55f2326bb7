//! Reading JSON-RPC as it passes: the same result however it is cut, and what serde finds in a
//! valid message.
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

use libfuzzer_sys::fuzz_target;
use message::Message;
use scan::MessageScanner;

fn read(chunks: &[&[u8]]) -> Vec<Message> {
    let (mut scan, mut found) = (MessageScanner::default(), Vec::new());
    chunks.iter().for_each(|chunk| scan.feed(chunk, |message| found.push(message)));
    found
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (cut, bytes) = input;
    let whole = read(&[&bytes]);
    let (a, b) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(read(&[a, b]), whole);
    // Keys that are written twice, or with escapes, are read differently; both are odd enough.
    let text = String::from_utf8_lossy(&bytes);
    let plain = !text.contains('\\') && text.matches("\"id\"").count() == 1;
    if let (true, Ok(serde_json::Value::Object(value))) = (plain, serde_json::from_slice(&bytes)) {
        let [message] = whole.as_slice() else { panic!("one message: {whole:?}") };
        if let Some(serde_json::Value::String(id)) = value.get("id").filter(|_| bytes.len() < 256) {
            assert_eq!(message.id.as_deref(), Some(format!("\"{id}\"").as_str()));
        }
    }
});
