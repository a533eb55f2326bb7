//! Session ids: nobody makes a good one without the secret.
#![no_main]

#[expect(dead_code, reason = "the proxy uses more of it")]
#[path = "../../src/proxy/session/id.rs"]
mod session;

use libfuzzer_sys::fuzz_target;
use rollbackd::model;

fuzz_target!(|id: &str| {
    let sessions = session::SessionIdCodec::new("weather", [7; 16]);
    assert_eq!(sessions.decode(id), None);
});
