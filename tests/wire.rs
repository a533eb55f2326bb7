//! What other programs and other versions of rollbackd read and write: timelines, recordings, session
//! files, control messages, handover messages, metrics, exit codes.
//!
//! - `tests/wire/*.txt` holds what this version writes. `WIRE_BLESS=1 cargo test --lib --test wire`
//!   writes these files; review the diff. Types that are private are held by unit tests in `src`.
//! - `tests/wire/0.1.0/` holds what version 0.1.0 wrote. This version must read it, for ever.
//!   Nothing writes these files again.
//! - `tests/wire/state-0.1.0/` is a state directory that version 0.1.0 left. `tests/wire/record-state`
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
    use rollbackd::config::ProblemCode;
    let codes = one_of_each!(ProblemCode;
        ProblemCode::Unreadable => "" ProblemCode::Unreadable;
        ProblemCode::TooLarge => "" ProblemCode::TooLarge;
        ProblemCode::NotUtf8 => "" ProblemCode::NotUtf8;
        ProblemCode::Syntax => "" ProblemCode::Syntax;
        ProblemCode::UnknownKey => "" ProblemCode::UnknownKey;
        ProblemCode::WrongType => "" ProblemCode::WrongType;
        ProblemCode::Missing => "" ProblemCode::Missing;
        ProblemCode::BadValue => "" ProblemCode::BadValue;
        ProblemCode::OutOfRange => "" ProblemCode::OutOfRange;
        ProblemCode::BadName => "" ProblemCode::BadName;
        ProblemCode::Contradiction => "" ProblemCode::Contradiction;
        ProblemCode::DuplicateAddress => "" ProblemCode::DuplicateAddress;
        ProblemCode::UnknownPlaceholder => "" ProblemCode::UnknownPlaceholder;
        ProblemCode::UnreachableThreshold => "" ProblemCode::UnreachableThreshold;
        ProblemCode::NeverReady => "" ProblemCode::NeverReady;
        ProblemCode::TooSlow => "" ProblemCode::TooSlow;
        ProblemCode::RefusesClients => "" ProblemCode::RefusesClients;
        ProblemCode::WeakEvidence => "" ProblemCode::WeakEvidence;
        ProblemCode::FalseAlarms => "" ProblemCode::FalseAlarms;
        ProblemCode::SameCommand => "" ProblemCode::SameCommand;
    );
    let names = codes.iter().map(|(_, code)| format!("{}\n", code.as_str()));
    golden::hold("problem-codes.txt", &names.collect::<String>());
}
