//! What other programs and other versions of rollbackd read and write: timelines, recordings, session
//! files, control messages, handover messages, metrics, exit codes.
//!
//! - `tests/wire/*.txt` holds what this version writes. `WIRE_BLESS=1 cargo test --lib --test wire`
//!   writes these files; review the diff. Types that are private are held by unit tests in `src`.
//! - `tests/wire/0.1.0/` holds what version 0.1.0 wrote. This version must read it, for ever.
//!   Nothing writes these files again.
//! - `tests/wire/state-0.1.0/` is a state folder that version 0.1.0 left. `tests/wire/record-state`
//!   made it.
//! - `tests/wire/handover-from OLD_BINARY` runs a handover from a real old binary to this version,
//!   and back. It is a command and not a test, since the repository holds no old binary.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and tell what it saw"
)]

include!("wire/each.rs");

#[path = "wire/control.rs"]
mod control;
#[path = "wire/examples.rs"]
mod examples;
#[path = "wire/golden.rs"]
mod golden;
#[path = "wire/handover.rs"]
mod handover;
#[path = "wire/lines.rs"]
mod lines;
#[path = "wire/signals.rs"]
mod signals;
#[path = "wire/state.rs"]
mod state;
#[path = "daemon/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other tests use the rest of it")]
mod support;
#[path = "wire/timeline.rs"]
mod timeline;
#[path = "wire/words.rs"]
mod words;

#[test]
fn problem_codes_are_as_they_were() {
    use rollbackd::config::Code;
    let codes = one_of_each!(Code;
        Code::Unreadable => "" Code::Unreadable;
        Code::TooLarge => "" Code::TooLarge;
        Code::NotText => "" Code::NotText;
        Code::Syntax => "" Code::Syntax;
        Code::UnknownKey => "" Code::UnknownKey;
        Code::WrongType => "" Code::WrongType;
        Code::Missing => "" Code::Missing;
        Code::BadValue => "" Code::BadValue;
        Code::OutOfRange => "" Code::OutOfRange;
        Code::BadName => "" Code::BadName;
        Code::Contradiction => "" Code::Contradiction;
        Code::AddressTwice => "" Code::AddressTwice;
        Code::UnknownPlaceholder => "" Code::UnknownPlaceholder;
        Code::NeverTrips => "" Code::NeverTrips;
        Code::NeverReady => "" Code::NeverReady;
        Code::TooSlow => "" Code::TooSlow;
        Code::RefusesClients => "" Code::RefusesClients;
        Code::WeakEvidence => "" Code::WeakEvidence;
        Code::FalseAlarms => "" Code::FalseAlarms;
    );
    let names = codes.iter().map(|(_, code)| format!("{}\n", code.name()));
    golden::hold("problem-codes.txt", &names.collect::<String>());
}
