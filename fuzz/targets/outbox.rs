//! Any bytes are an outbox: reading them ends, and nothing unbounded waits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollbackd::record::OutboxState;

fuzz_target!(|bytes: &[u8]| {
    let (state, _) = OutboxState::parse(bytes);
    let (again, _) = OutboxState::parse(bytes);
    assert_eq!(state, again);
});
