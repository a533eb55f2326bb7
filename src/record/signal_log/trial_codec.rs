//! The lines of a trial in a signal log.
//!
//! A cell is `T` or `C` for its arm, the subject's hash in hexadecimal without the zeros at its end, after
//! a colon that of its client where it differs, the call's hash, the second, and where they differ from
//! 1, 0 and 0: the requests that started, failed and were excused. A pair that is known to fail is the
//! subject's hash and the call's.

use std::fmt::Write as _;

use crate::model::{Arm, RampStep, TrialCell};

/// Cells of one line: what the proxy counts between two reads.
const CELLS_MAX: usize = 50_000;

/// The cells, each with a space before it.
pub(super) fn encode_cells(cells: &[TrialCell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let TrialCell { arm, subject, client, call, second, started, failed, excused } = cell;
        let arm = match arm {
            Arm::Trial => 'T',
            Arm::Control => 'C',
        };
        // Writing to a string does not fail.
        let _ = write!(text, " {arm}{}", encode_hash(*subject));
        if client != subject {
            let _ = write!(text, ":{}", encode_hash(*client));
        }
        let _ = write!(text, ",{call:x},{second}");
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
    let names = parts.next()?;
    let (subject, client) = names.split_once(':').unwrap_or((names, names));
    let (subject, client) = (decode_hash(subject)?, decode_hash(client)?);
    let call = u64::from_str_radix(parts.next()?, 16).ok()?;
    let second = parts.next()?.parse().ok()?;
    let mut number = |default: u32| match parts.next() {
        Some(text) => text.parse().ok(),
        None => Some(default),
    };
    let (started, failed, excused) = (number(1)?, number(0)?, number(0)?);
    let cell = TrialCell { arm, subject, client, call, second, started, failed, excused };
    parts.next().is_none().then_some(cell)
}

fn encode_hash(hash: u64) -> String {
    let mut text = format!("{hash:016x}");
    text.truncate(text.trim_end_matches('0').len());
    text
}

fn decode_hash(text: &str) -> Option<u64> {
    let is_hash = text.len() <= 16 && text.bytes().all(|it| it.is_ascii_hexdigit());
    u64::from_str_radix(&format!("{text:0<16}"), 16).ok().filter(|_| is_hash)
}

/// The pairs of subject and call that are known to fail, each with a space before it.
pub(super) fn encode_pairs(pairs: &[(u64, u64)]) -> String {
    let mut text = String::new();
    for (subject, call) in pairs {
        // Writing to a string does not fail.
        let _ = write!(text, " {},{call:x}", encode_hash(*subject));
    }
    text
}

/// Reads what [`encode_pairs`] wrote.
pub(super) fn decode_pairs(text: &str) -> Option<Vec<(u64, u64)>> {
    let words = text.split(' ').filter(|it| !it.is_empty()).take(CELLS_MAX);
    let pairs = words.map(|word| {
        let (subject, call) = word.split_once(',')?;
        Some((decode_hash(subject)?, u64::from_str_radix(call, 16).ok()?))
    });
    pairs.collect()
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
