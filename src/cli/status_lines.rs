//! The lines of a status, as wide as the terminal.

use crate::cli::terminal::{Terminal, fit, wrap};

/// Where further lines of a wrapped text begin.
const INDENT: usize = 4;
pub(super) const WARNING: &str = "\x1b[1;31m";
pub(super) const PLAIN: &str = "\x1b[0m";

/// Lines of at most the width of the terminal.
pub(super) struct Lines {
    terminal: Terminal,
    pub(super) text: String,
}

impl Lines {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { terminal, text: String::new() }
    }

    pub(super) fn push(&mut self, line: &str) {
        for line in wrap(line, self.terminal.width, INDENT).lines() {
            // A word that is longer than a line.
            self.text.push_str(&fit(line, self.terminal.width));
            self.text.push('\n');
        }
    }

    pub(super) fn warn(&mut self, line: &str) {
        let before = self.text.len();
        self.push(line);
        if self.terminal.has_colour {
            let coloured = self.text.split_off(before);
            for line in coloured.lines() {
                self.text.push_str(&format!("{WARNING}{line}{PLAIN}\n"));
            }
        }
    }
}
