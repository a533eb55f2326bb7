//! What a stream can show: colours, cursor movements, and how many columns.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;

/// The size of a terminal that does not say it.
const DEFAULT_SIZE: (usize, usize) = (80, 24);
/// Narrower terminals are treated as this wide.
const WIDTH_MIN: usize = 20;

/// The abilities of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terminal {
    /// Whether a line can be overwritten.
    pub(super) can_redraw: bool,
    /// Whether to use colours.
    pub(super) has_colour: bool,
    /// Columns of a line.
    pub(super) width: usize,
    /// Lines of the screen.
    pub(super) height: usize,
}

impl Terminal {
    /// The standard output.
    pub(super) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal(), rustix::stdio::stdout())
    }

    /// The standard error.
    pub(super) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal(), rustix::stdio::stderr())
    }

    fn of(is_terminal: bool, stream: impl AsFd) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let size = is_terminal.then(|| window_size(stream).unwrap_or(DEFAULT_SIZE));
        Self::from_variables(size, variable)
    }

    /// NO_COLOR (no-color.org), CLICOLOR and CLICOLOR_FORCE (bixense.com/clicolors), TERM.
    /// `size` is that of a terminal. Other streams have lines of any length, unless COLUMNS says how
    /// long.
    fn from_variables(
        size: Option<(usize, usize)>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let can_redraw = size.is_some() && variable("TERM").is_some_and(|term| term != "dumb");
        let is_on = |name| variable(name).map(|value| value != "0");
        let has_colour = if variable("NO_COLOR").is_some() {
            false
        } else if is_on("CLICOLOR_FORCE") == Some(true) {
            true
        } else {
            can_redraw && is_on("CLICOLOR") != Some(false)
        };
        let columns = variable("COLUMNS").and_then(|columns| columns.parse().ok());
        let columns = columns.filter(|columns| 0 < *columns);
        let (width, height) = size.unwrap_or((usize::MAX, usize::MAX));
        Self { can_redraw, has_colour, width: columns.unwrap_or(width).max(WIDTH_MIN), height }
    }
}

fn window_size(stream: impl AsFd) -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    Some((usize::from(size.ws_col), usize::from(size.ws_row))).filter(|(columns, _)| 0 < *columns)
}

/// Cuts a line to `width` columns. A cut line ends with `...`.
pub(super) fn fit(line: &str, width: usize) -> String {
    let columns = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    if columns(line) <= width {
        return line.to_owned();
    }
    let mut kept = String::new();
    for character in line.chars() {
        kept.push(character);
        if columns(&kept) + 3 > width {
            kept.pop();
            break;
        }
    }
    kept + "..."
}

/// Breaks a text into lines of at most `width` columns, between words; further lines begin with
/// `indent` blanks. A longer word has a line of its own.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let columns = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut lines = vec![String::new()];
    for (number, word) in text.split(' ').enumerate() {
        let Some(line) = lines.last_mut() else { break };
        let is_first = number == 0 || line.trim().is_empty();
        if is_first || columns(line) + 1 + columns(word) <= width {
            // A run of blanks, such as a column's, stays as it is.
            line.push_str(if number == 0 { "" } else { " " });
            line.push_str(word);
        } else if !word.is_empty() {
            line.truncate(line.trim_end().len());
            lines.push(" ".repeat(indent) + word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(is_terminal: bool, set: &[(&str, &str)]) -> Terminal {
        let variable = |name: &str| {
            let found = set.iter().find(|(key, value)| *key == name && !value.is_empty());
            found.map(|(_, value)| (*value).to_owned())
        };
        Terminal::from_variables(is_terminal.then_some((80, 24)), variable)
    }

    #[test]
    fn colours_follow_the_conventions() {
        let xterm = ("TERM", "xterm");
        assert!(with(true, &[xterm]).has_colour);
        assert!(!with(false, &[xterm]).has_colour);
        assert!(!with(true, &[("TERM", "dumb")]).has_colour);
        assert!(!with(true, &[]).has_colour);
        assert!(!with(true, &[xterm, ("NO_COLOR", "1")]).has_colour);
        assert!(with(true, &[xterm, ("NO_COLOR", "")]).has_colour, "an empty one is not set");
        assert!(!with(true, &[xterm, ("CLICOLOR", "0")]).has_colour);
        assert!(with(false, &[("CLICOLOR_FORCE", "1")]).has_colour);
        assert!(!with(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).has_colour);
    }

    #[test]
    fn a_pipe_has_long_lines_unless_columns_says_otherwise() {
        assert_eq!(with(false, &[]).width, usize::MAX);
        assert_eq!(with(false, &[("COLUMNS", "40")]).width, 40);
        assert_eq!((with(true, &[]).width, with(true, &[("COLUMNS", "0")]).width), (80, 80));
        assert_eq!(with(true, &[("COLUMNS", "3")]).width, WIDTH_MIN);
    }

    #[test]
    fn a_dumb_terminal_is_not_redrawn() {
        assert!(with(true, &[("TERM", "xterm")]).can_redraw);
        assert!(!with(true, &[("TERM", "dumb")]).can_redraw);
        assert!(!with(false, &[("TERM", "xterm")]).can_redraw);
    }

    #[test]
    fn a_line_is_cut_to_columns_and_not_to_bytes() {
        assert_eq!(fit("größe", 5), "größe");
        assert_eq!(fit("0123456789", 10), "0123456789");
        assert_eq!(fit("0123456789x", 10), "0123456...");
        assert_eq!(fit("漢字漢字漢字", 9), "漢字漢...");
    }

    #[test]
    fn a_text_is_broken_between_words() {
        let text = "  rolled back from v2 to v1";
        assert_eq!(wrap(text, 40, 2), text);
        assert_eq!(wrap(text, 14, 4), "  rolled back\n    from v2 to\n    v1");
        assert_eq!(wrap("a 0123456789 b", 5, 0), "a\n0123456789\nb");
        assert_eq!(
            wrap("  1 s  drained   v2 has nothing", 20, 4),
            "  1 s  drained   v2\n    has nothing"
        );
    }
}
