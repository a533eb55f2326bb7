//! Shows the demo in the terminal: lines that stay, and below them a picture that is drawn again.

use std::io::{self, Write as _};
use std::sync::Mutex;

use crate::cli::evidence::evidence_line;
use crate::cli::output;
use crate::cli::status::release_line;
use crate::cli::terminal::{Terminal, fit, wrap};
use crate::demo::{Picture, View};
use crate::mutex::lock;

/// Columns of the bar of a release's traffic.
const BAR_WIDTH: usize = 20;
/// Where further lines of a wrapped event begin: below its text.
const INDENT: usize = 24;

/// A terminal, or a stream that gets the lines alone.
#[derive(Debug)]
pub(super) struct DemoScreen {
    terminal: Terminal,
    to_stderr: bool,
    /// The lines of the picture that are on the screen.
    drawn: Mutex<Vec<String>>,
}

impl DemoScreen {
    /// A screen on stdout, or on stderr if stdout is for the result.
    pub(super) fn new(to_stderr: bool) -> Self {
        let terminal = if to_stderr { Terminal::stderr() } else { Terminal::stdout() };
        Self { terminal, to_stderr, drawn: Mutex::default() }
    }

    /// Replaces the picture by these lines and another picture.
    fn draw(&self, line: Option<&str>, picture: Option<Vec<String>>) {
        let mut drawn = lock(&self.drawn);
        let text = redraw(&drawn, line, picture.as_deref().unwrap_or(&drawn));
        if let Some(picture) = picture {
            *drawn = picture;
        }
        // A terminal that is gone shows nothing, and the demo goes on.
        let _: io::Result<()> = if self.to_stderr {
            io::stderr().lock().write_all(text.as_bytes())
        } else {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        };
    }
}

/// The output that removes a picture, prints a line, and draws the next picture below it.
fn redraw(drawn: &[String], line: Option<&str>, picture: &[String]) -> String {
    let mut text = String::new();
    if !drawn.is_empty() {
        text.push_str(&format!("\x1b[{}A\x1b[J", drawn.len()));
    }
    for line in line.into_iter().chain(picture.iter().map(String::as_str)) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

impl View for DemoScreen {
    fn show_line(&self, text: &str) {
        if self.terminal.can_redraw {
            let text = output::escape_lines(text);
            self.draw(Some(&wrap(&text, self.terminal.width, INDENT)), None);
        } else if self.to_stderr {
            output::stderr_line(text);
        } else {
            output::stdout_line(text);
        }
    }

    fn shows_pictures(&self) -> bool {
        self.terminal.can_redraw
    }

    fn show_picture(&self, picture: &Picture) {
        let lines = picture_lines(picture, self.terminal.width);
        // A picture that does not fit could not be removed again.
        if lines.len() < self.terminal.height {
            self.draw(None, Some(lines));
        }
    }

    fn clear_picture(&self) {
        if self.terminal.can_redraw {
            self.draw(None, Some(Vec::new()));
        }
    }
}

/// The picture, a line of the terminal each.
fn picture_lines(picture: &Picture, width: usize) -> Vec<String> {
    let Picture { status, clients } = picture;
    let total: f64 = status.releases.iter().map(|release| release.rate).sum();
    let mut lines = vec![String::new()];
    for release in &status.releases {
        let share = if total > 0.0 { release.rate / total } else { 0.0 };
        let filled = ((share * BAR_WIDTH as f64).round() as usize).min(BAR_WIDTH);
        let bar = "#".repeat(filled) + &"-".repeat(BAR_WIDTH - filled);
        lines.push(format!("  [{bar}]{}", release_line(release)));
    }
    let counts = [
        (clients.requests, "requests"),
        (clients.failed, "failed"),
        (clients.sessions, "sessions"),
        (clients.broken, "lost"),
    ];
    let counts = counts.map(|(count, what)| format!("{count} {what}"));
    lines.push(format!("  clients: {}", counts.join(", ")));
    if let Some(evidence) = &status.evidence {
        lines.push(evidence_line(evidence));
    }
    lines.push(format!("  {}: {}", status.phase, status.waits_for));
    lines.iter().map(|line| fit(&output::escape_lines(line), width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Response;
    use crate::demo::traffic::LiveCounts;

    fn picture() -> Picture {
        let replies =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/control-replies.txt"));
        let line = replies.lines().find_map(|line| line.strip_prefix("status  ")).unwrap();
        let Response::Status(status) = serde_json::from_str(line).unwrap() else {
            panic!("{line}")
        };
        let clients = LiveCounts { requests: 544, failed: 12, sessions: 34, broken: 0 };
        Picture { status: *status, clients }
    }

    #[test]
    fn a_picture_has_the_releases_the_clients_and_the_evidence_within_its_columns() {
        for width in [40, 80, 200] {
            let lines = picture_lines(&picture(), width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            let text = lines.join("\n");
            assert!(text.contains("  clients: 544 requests, 12 failed"), "{text}");
            assert!(text.contains("  evidence: ["), "{text}");
            assert!(text.contains("  [####"), "{text}");
        }
    }

    #[test]
    fn a_line_stays_above_the_picture() {
        let picture = ["a".to_owned(), "b".to_owned()];
        assert_eq!(redraw(&[], Some("event"), &picture), "event\na\nb\n");
        assert_eq!(redraw(&picture, Some("event"), &picture), "\x1b[2A\x1b[Jevent\na\nb\n");
        assert_eq!(redraw(&picture, None, &[]), "\x1b[2A\x1b[J");
    }
}
