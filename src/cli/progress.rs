//! The progress of a verb that waits, on stderr: on a terminal one line that is overwritten,
//! elsewhere a line a minute.

use std::io::{self, Write as _};

use crate::cli::output;
use crate::cli::terminal::{Terminal, fit};
use crate::control::Status;
use crate::model::{escape_unsafe, format_seconds};

/// Statuses for each line without a terminal; the daemon sends one a second.
const STATUSES_PER_LINE: u32 = 60;

/// The progress of a wait.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: Terminal,
    line_visible: bool,
    status_count: u32,
}

impl Progress {
    /// Shows nothing yet.
    pub(super) fn new() -> Self {
        Self { terminal: Terminal::stderr(), line_visible: false, status_count: 0 }
    }

    /// Clears the line before other output.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.line_visible) {
            let _: io::Result<()> = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    /// Shows a status.
    pub(super) fn show(&mut self, status: &Status) {
        self.status_count += 1;
        if self.terminal.can_redraw {
            // The width may change meanwhile. A line that wraps could not be cleared.
            let width = Terminal::stderr().width.saturating_sub(1);
            let line = fit(&escape_unsafe(&progress_line(status)), width);
            let mut stderr = io::stderr().lock();
            let _: io::Result<()> = write!(stderr, "{line}").and_then(|()| stderr.flush());
            self.line_visible = true;
        } else if self.status_count.is_multiple_of(STATUSES_PER_LINE) {
            output::stderr_line(&progress_line(status));
        }
    }
}

fn progress_line(status: &Status) -> String {
    let mut text = format!("... {}", status.waits_for);
    if let Some(remaining) = status.remaining_s {
        text.push_str(&format!(", {} left", format_seconds(remaining)));
    }
    if let Some(active) = status.releases.iter().find(|release| release.role == "active") {
        let bad = 100.0 * active.error_rate;
        text.push_str(&format!("; {:.1} requests/s, {bad:.2} % bad", active.rate));
    }
    if let Some(evidence) = &status.evidence {
        let percent = 100.0 * evidence.progress();
        text.push_str(&format!(", evidence {percent:.0} % of the way"));
    }
    text
}
