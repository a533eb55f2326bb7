//! The lines of a trial in a signal log.
//!
//! A cell is `T` or `C` for its arm, the subject's hash in hexadecimal without the zeros at its end, the
//! call's hash, the second, and where they differ from 1, 0 and 0: the requests that started, failed
//! and were excused.

use std::fmt::Write as _;

use crate::model::{Arm, RampStep, TrialCell};

/// Cells of one line: what the proxy counts between two reads.
const CELLS_MAX: usize = 50_000;

/// The cells, each with a space before it.
pub(super) fn encode_cells(cells: &[TrialCell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let TrialCell { arm, subject, call, second, started, failed, excused } = cell;
        let arm = match arm {
            Arm::Trial => 'T',
            Arm::Control => 'C',
        };
        let subject = format!("{subject:016x}");
        let subject = subject.trim_end_matches('0');
        // Writing to a string does not fail.
        let _ = write!(text, " {arm}{subject},{call:x},{second}");
        let numbers = [(*started, 1), (*failed, 0), (*excused, 0)];
        let shown = numbers.iter().rposition(|(it, default)| it != default).map_or(0, |at| at + 1);
        for (number, _) in numbers.iter().take(shown) {
            let _ = write!(text, ",{number}");
        }
    }
    text
}

/// Reads what [`encode_cells`] wrote.
pub(super) fn decode_cells(text: &str) -> Option<Vec<TrialCell>> {
    let words = text.split(' ').filter(|it| !it.is_empty());
    let cells: Option<Vec<_>> = words.take(CELLS_MAX).map(decode_cell).collect();
    cells
}

fn decode_cell(text: &str) -> Option<TrialCell> {
    let (arm, rest) = match text.strip_prefix('T') {
        Some(rest) => (Arm::Trial, rest),
        None => (Arm::Control, text.strip_prefix('C')?),
    };
    let mut parts = rest.split(',');
    let subject = parts.next()?;
    let is_hash = subject.len() <= 16 && subject.bytes().all(|it| it.is_ascii_hexdigit());
    let subject = u64::from_str_radix(&format!("{subject:0<16}"), 16).ok().filter(|_| is_hash)?;
    let call = u64::from_str_radix(parts.next()?, 16).ok()?;
    let second = parts.next()?.parse().ok()?;
    let mut number = |default: u32| match parts.next() {
        Some(text) => text.parse().ok(),
        None => Some(default),
    };
    let (started, failed, excused) = (number(1)?, number(0)?, number(0)?);
    let cell = TrialCell { arm, subject, call, second, started, failed, excused };
    parts.next().is_none().then_some(cell)
}

/// Number, count, share and bound of a step.
pub(super) fn encode_step(step: RampStep) -> String {
    let RampStep { step, of, share_ppm, below_ppm } = step;
    format!("{step} {of} {share_ppm} {below_ppm}")
}

/// Reads what [`encode_step`] wrote.
pub(super) fn decode_step(text: &str) -> Option<RampStep> {
    let mut numbers = text.split(' ').map(|it| it.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let step = RampStep { step: next()?, of: next()?, share_ppm: next()?, below_ppm: next()? };
    numbers.next().is_none().then_some(step)
}
