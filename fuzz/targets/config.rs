//! Any text is a configuration, or a list of problems that can be printed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(problems) = rollbackd::config::parse("fuzz.toml", text) {
        assert!(!problems.to_string().is_empty());
    }
});
