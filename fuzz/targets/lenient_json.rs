//! Lenient JSON: what is JSON is read as serde reads it, and nothing makes it panic. A large body that
//! passes in pieces is judged as one.
#![no_main]

#[path = "../../src/mcp/large_body.rs"]
mod large_body;
#[path = "../../src/mcp/lenient_json.rs"]
mod lenient_json;

use large_body::LargeBodyCheck;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn is_invalid(pieces: &[&[u8]]) -> bool {
    let mut check = LargeBodyCheck::default();
    pieces.iter().for_each(|piece| check.feed(piece));
    check.is_invalid()
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (cut, bytes) = input;
    let lenient = lenient_json::parse(&bytes);
    if let Ok(strict) = serde_json::from_slice::<Value>(&bytes) {
        assert_eq!(lenient.ok(), Some(strict));
    }
    let (a, b) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(is_invalid(&[a, b]), is_invalid(&[&bytes]));
});
