//! Lines of a timeline: what can be read can be written, read again, and folded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollbackd::decide::Watch;
use rollbackd::model::{Moment, TimelineEntry};

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n');
    let entries: Vec<TimelineEntry> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let checked = rollbackd::config::parse("example", include_str!("../../config.toml.example"));
    let Ok(checked) = checked else { return };
    for service in checked.settings.services.values() {
        let watch = Watch::restore(service.policy.clone(), &entries, Moment(0));
        let _ = watch.restored(Moment(u64::MAX), 1);
    }
});
