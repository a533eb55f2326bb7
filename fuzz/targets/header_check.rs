//! Headers that say `tools/call` of `safe`: no reader of JSON finds another tool in a body that passes.
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
use scan::MessageScanner;
use serde_json::Value;

/// Words of the protocol, which libFuzzer would need long to find.
const PIECES: [&str; 16] = [
    "{", "}", ",", ":", "\"method\"", "\"tools/call\"", "\"params\"", "\"name\"", "\"safe\"", "\"wipe\"",
    "\"uri\"", "\"n\\u0061me\"", "\"Name\"", "[", "]", "{\"method\":\"tools/call\",\"params\":{\"name\":\"safe\"}}",
];

fuzz_target!(|picks: Vec<u8>| {
    let body: String = picks.iter().map(|pick| PIECES[usize::from(*pick) % PIECES.len()]).collect();
    let (mut scanner, mut messages) = (MessageScanner::default(), Vec::new());
    scanner.feed(body.as_bytes(), |message| messages.push(message));
    let [message] = messages.as_slice() else { return };
    let passes = scanner.is_whole()
        && !scanner.is_batch()
        && !message.is_ambiguous
        && message.method.as_deref() == Some("tools/call")
        && message.name.as_deref() == Some("safe");
    // serde takes the last of two equal keys, which is what most readers do.
    if let (true, Ok(value)) = (passes, serde_json::from_str::<Value>(&body)) {
        assert_eq!(value["params"]["name"], "safe", "{body}");
    }
});
