//! What two daemons tell each other at a handover: any bytes are read or refused, and what is read
//! can be written and read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollbackd::proxy::{ReplicationMessage, RoutesSnapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn survives<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let Ok(text) = serde_json::to_string(&message) else { panic!("it can not be written") };
    let Ok(again) = serde_json::from_str::<T>(&text) else { panic!("not read: {text}") };
    assert_eq!(serde_json::to_string(&again).ok(), Some(text));
}

fuzz_target!(|bytes: &[u8]| {
    survives::<ReplicationMessage>(bytes);
    survives::<RoutesSnapshot>(bytes);
});
