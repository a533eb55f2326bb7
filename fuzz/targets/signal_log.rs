//! Recordings of what a judge heard: any bytes are answered, and what is read can be heard.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rollbackd::record;

const HEAD: &str = include_str!("../signal-log-header.txt");

fuzz_target!(|bytes: &[u8]| {
    let _ = record::parse_signal_log(Path::new("any"), bytes);
    let whole = [HEAD.as_bytes(), bytes].concat();
    let Ok(recorded) = record::parse_signal_log(Path::new("any"), &whole) else { return };
    let heard = recorded.signals().take(100_000).map(|(moment, _)| moment);
    assert!(heard.is_sorted());
});
