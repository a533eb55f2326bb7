//! `rollbackd reload`

use clap::Args;

use crate::cli::daemon_options::{DaemonOptions, unexpected_response};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::status_lines::Lines;
use crate::cli::terminal::Terminal;
use crate::control::{ReloadReport, Request, Response};

/// Make the daemon read its configuration again, and show what became of each setting that differs.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: &Options, daemon: &DaemonOptions) -> Exit {
    let report = match daemon.ask(&Request::Reload {}).await {
        Ok(Response::Reloaded { report }) => report,
        Ok(_) => return unexpected_response(),
        Err(exit) => return exit,
    };
    if options.json {
        output::json_line(&report);
    } else {
        output::stdout_line(render(&report, Terminal::stdout()).trim_end());
    }
    if report.unconfirmed.is_empty() { Exit::Done } else { Exit::Failed }
}

fn render(report: &ReloadReport, terminal: Terminal) -> String {
    let ReloadReport { now, next_deploy, restart, unconfirmed } = report;
    let mut lines = Lines::new(terminal);
    if [now, next_deploy, restart, unconfirmed].iter().all(|names| names.is_empty()) {
        lines.push("nothing differs");
    }
    for (names, when) in [
        (now, "in effect now"),
        (next_deploy, "in effect with the next deploy"),
        (restart, "in effect after `systemctl restart rollbackd`"),
        (unconfirmed, "services that did not confirm the new settings within 5 s (reload again)"),
    ] {
        if !names.is_empty() {
            lines.push(&format!("{when}: {}", names.join(", ")));
        }
    }
    lines.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_each_setting_is_a_line() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let terminal =
            Terminal { can_redraw: false, has_colour: false, width: usize::MAX, height: 50 };
        let report = ReloadReport {
            now: names(&["x.mode", "x.bake"]),
            next_deploy: Vec::new(),
            restart: names(&["daemon.metrics"]),
            unconfirmed: names(&["y"]),
        };
        assert_eq!(
            render(&report, terminal),
            "in effect now: x.mode, x.bake\n\
             in effect after `systemctl restart rollbackd`: daemon.metrics\n\
             services that did not confirm the new settings within 5 s (reload again): y\n"
        );
        assert_eq!(render(&ReloadReport::default(), terminal), "nothing differs\n");
    }
}
