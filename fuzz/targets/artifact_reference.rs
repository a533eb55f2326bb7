//! Names of images: what is read prints as it was written.
#![no_main]

#[expect(dead_code, reason = "the room uses more of it")]
#[path = "../../src/artifact/digest.rs"]
mod digest;
#[expect(dead_code, reason = "the room uses more of it")]
#[path = "../../src/artifact/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(read) = reference::Reference::parse(text) {
        assert_eq!(read.to_string(), text);
    }
    if let Ok(digest) = text.parse::<digest::Digest>() {
        assert_eq!(digest.to_string(), text);
    }
});
