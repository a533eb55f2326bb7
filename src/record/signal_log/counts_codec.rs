//! Outcomes in a line of a signal log: a letter and a number for each that is not 0.

use std::fmt::Write as _;

use crate::model::Counts;

/// The letters of the counts in a block, in the order in which they are written.
const COUNT_LETTERS: [char; 15] =
    ['o', 'f', 't', 'c', 'n', 's', 'd', 'a', 'x', 'l', 'k', 'm', 'w', 'g', 'p'];

/// The counts that are not 0, each with a space before it.
pub(super) fn encode_counts(counts: &Counts) -> String {
    let mut copy = *counts;
    let mut text = String::new();
    for (letter, count) in COUNT_LETTERS.into_iter().zip(count_fields(&mut copy)) {
        if *count > 0 {
            let _ = write!(text, " {letter}{count}");
        }
    }
    text
}

pub(super) fn decode_counts(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    for word in text.split(' ').filter(|it| !it.is_empty()) {
        let mut rest = word.chars();
        let letter = rest.next()?;
        let index = COUNT_LETTERS.iter().position(|it| *it == letter)?;
        *count_fields(&mut counts).into_iter().nth(index)? = rest.as_str().parse().ok()?;
    }
    Some(counts)
}

/// In the order of [`COUNT_LETTERS`]. The pattern names every field, so that a new one cannot be
/// forgotten.
fn count_fields(counts: &mut Counts) -> [&mut u64; 15] {
    let Counts {
        ok,
        server_fault,
        tool_fault,
        client_fault,
        neutral,
        slow,
        with_latency,
        repeatable,
        repeatable_failed,
        streams_ended,
        streams_broken,
        small,
        slower,
        given_up,
        answered_late,
    } = counts;
    [
        ok,
        server_fault,
        tool_fault,
        client_fault,
        neutral,
        slow,
        with_latency,
        repeatable,
        repeatable_failed,
        streams_ended,
        streams_broken,
        small,
        slower,
        given_up,
        answered_late,
    ]
}
