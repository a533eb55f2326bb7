//! Shortening of `ttlMs`: only that number changes, and never to a longer time.
#![no_main]

#[path = "../../src/mcp/ttl_clamp.rs"]
mod ttl_clamp;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|message: &[u8]| {
    let Some(clamped) = ttl_clamp::clamp_ttl(message) else { return };
    let (Ok(mut before), Ok(after)) =
        (serde_json::from_slice::<Value>(message), serde_json::from_slice::<Value>(&clamped))
    else {
        panic!("a rewritten message is no JSON");
    };
    assert!(before["result"]["ttlMs"].as_f64() > after["result"]["ttlMs"].as_f64());
    before["result"]["ttlMs"] = after["result"]["ttlMs"].clone();
    assert_eq!(before, after);
});
