//! Requests on the control socket: any line is a request or an error, and a request can be written
//! and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollbackd::control::Request;

fuzz_target!(|line: &[u8]| {
    let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
    let Ok(text) = serde_json::to_string(&request) else { panic!("it can not be written") };
    let Ok(again) = serde_json::from_str::<Request>(&text) else { panic!("not read: {text}") };
    assert_eq!(serde_json::to_string(&again).ok(), Some(text));
});
