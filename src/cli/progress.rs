//! What a verb that waits shows meanwhile, on stderr: one line that is written over on a terminal, a
//! line a minute elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use crate::control::Status;

use super::say;
use super::status::span;

/// Statuses between two lines where there is no terminal; the daemon sends one a second.
const EVERY: u32 = 60;

/// The progress of a wait.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    shown: bool,
    statuses: u32,
}

impl Progress {
    /// Nothing shown yet.
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false, statuses: 0 }
    }

    /// Makes room for another line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _: io::Result<()> = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    /// Shows how things stand.
    pub(super) fn show(&mut self, status: &Status) {
        self.statuses += 1;
        if self.terminal {
            let mut stderr = io::stderr().lock();
            let _: io::Result<()> =
                write!(stderr, "{}", line(status)).and_then(|()| stderr.flush());
            self.shown = true;
        } else if self.statuses.is_multiple_of(EVERY) {
            say::aside(&line(status));
        }
    }
}

fn line(status: &Status) -> String {
    let mut text = format!("... {}", status.waits_for);
    if let Some(left) = status.left_s {
        text.push_str(&format!(", {} left", span(left)));
    }
    if let Some(active) = status.releases.iter().find(|release| release.role == "active") {
        let bad = 100.0 * active.error_rate;
        text.push_str(&format!("; {:.1} requests/s, {bad:.2} % bad", active.rate));
    }
    if let Some(evidence) = &status.evidence {
        let way = 100.0 * evidence.progress();
        text.push_str(&format!(", evidence {way:.0} % of the way"));
    }
    text
}
