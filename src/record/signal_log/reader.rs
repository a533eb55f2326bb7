//! Reads a signal log, whole or up to the point where a crash cut it.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::files::open_to_read;
use crate::model::{Moment, Signal};
use crate::record::signal_log::codec;
use crate::record::signal_log::codec::{
    END_MARKER, Line, MAGIC, SIGNAL_LOG_BYTES_MAX, SignalLogHeader,
};

/// Signals in one log: a day of ten releases.
const SIGNALS_MAX: u64 = 4_000_000;

/// The signals that a judge received in one bake.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalLog {
    /// What the bake began with.
    pub header: SignalLogHeader,
    /// Whether the log reached its maximum size before the bake ended.
    pub size_limit_reached: bool,
    /// Bytes of an incomplete end that are left out; 0 except after a crash.
    pub truncated_bytes: u64,
    /// Bytes of the complete lines.
    pub(in crate::record) valid_bytes: u64,
    lines: String,
}

/// Why a signal log cannot be read: where, what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {what}; {help}", .path.display(), .line.map_or(String::new(), |it| format!(", line {it}")))]
pub struct SignalLogError {
    path: PathBuf,
    line: Option<usize>,
    what: String,
    help: &'static str,
}

/// Reads a signal log. An incomplete last line, which a killed daemon leaves, is left out.
///
/// # Errors
/// The file cannot be read, has another kind or version, or is damaged before its end.
pub fn read_signal_log(path: &Path) -> Result<SignalLog, SignalLogError> {
    let unreadable = |error: io::Error| SignalLogError {
        path: path.to_owned(),
        line: None,
        what: error.to_string(),
        help: "name a file that exists and is readable",
    };
    let mut bytes = Vec::new();
    let file = open_to_read(path).map_err(unreadable)?;
    file.take(SIGNAL_LOG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parse_signal_log(path, &bytes)
}

/// Reads the bytes of a signal log; `path` is for the messages.
///
/// # Errors
/// As [`read_signal_log`].
pub fn parse_signal_log(path: &Path, bytes: &[u8]) -> Result<SignalLog, SignalLogError> {
    let fail = |line, what: &str, help| {
        let (path, what) = (path.to_owned(), what.to_owned());
        Err(SignalLogError { path, line, what, help })
    };
    if bytes.len() as u64 > SIGNAL_LOG_BYTES_MAX {
        return fail(None, "it is larger than a signal log can be", "name a .signals file");
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().and_then(complete_line).and_then(|line| line.strip_prefix(MAGIC));
    let Some(header) = first.and_then(|json| serde_json::from_str(json).ok()) else {
        let help = "name a .signals file of this version of rollbackd";
        return fail(Some(1), "it does not begin like a signal log", help);
    };
    let (mut valid_lines, mut count, mut size_limit_reached) = (String::new(), 0_u64, false);
    let header_bytes = whole - lines.clone().map(<[u8]>::len).sum::<usize>();
    let mut lines = lines.enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let (last, text) = (lines.peek().is_none(), complete_line(line));
        let signals = match text.map(|text| (text, codec::decode_line(text))) {
            Some((END_MARKER, _)) if last => {
                size_limit_reached = true;
                break;
            }
            Some((_, Some(Line::Single(..)))) => 1,
            Some((_, Some(Line::IdleRun(idle)))) => idle.len(),
            // Blocks of one write can reach the disk out of order.
            _ if last => break,
            _ => {
                let help = "move the file away; the timeline does not need it";
                return fail(Some(index + 2), "this line is invalid", help);
            }
        };
        count = count.saturating_add(signals);
        if count > SIGNALS_MAX {
            let help = "move the file away; rollbackd did not write it";
            return fail(
                Some(index + 2),
                &format!("the lines so far hold more than {SIGNALS_MAX} signals"),
                help,
            );
        }
        valid_lines.push_str(text.unwrap_or_default());
        valid_lines.push('\n');
    }
    let end_bytes = if size_limit_reached { END_MARKER.len() + 1 } else { 0 };
    let valid_bytes = (header_bytes + valid_lines.len() + end_bytes) as u64;
    Ok(SignalLog {
        header,
        size_limit_reached,
        truncated_bytes: (bytes.len() as u64).saturating_sub(valid_bytes),
        valid_bytes,
        lines: valid_lines,
    })
}

fn complete_line(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()?.strip_suffix('\n')
}

impl SignalLog {
    /// Each signal and its moment, in the order in which the judge received them.
    pub fn signals(&self) -> impl Iterator<Item = (Moment, Signal)> + '_ {
        let mut now = self.header.opened.0;
        let lines = self.lines.lines().filter_map(codec::decode_line);
        let each = lines.flat_map(|line| -> Box<dyn Iterator<Item = (u64, Signal)>> {
            match line {
                Line::Single(step, signal) => Box::new(std::iter::once((step, signal))),
                Line::IdleRun(idle) => Box::new(idle.into_blocks()),
            }
        });
        each.map(move |(step, signal)| {
            now = now.saturating_add(step);
            (Moment(now), signal)
        })
    }

    /// When the newest signal arrived.
    pub fn last_moment(&self) -> Moment {
        self.signals().last().map_or(self.header.opened, |(moment, _)| moment)
    }
}
