//! `rollbackd reload`

use clap::Args;

use crate::cli::daemon_options::{DaemonOptions, connection_lost};
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
    let mut client = match daemon.send_request(&Request::Reload {}).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    match client.next_response().await {
        Ok(Some(Response::Reloaded { report })) => {
            if options.json {
                output::json_line(&report);
            } else {
                output::stdout_line(render(&report, Terminal::stdout()).trim_end());
            }
            Exit::Done
        }
        Ok(Some(Response::Refused { code, because, .. })) => {
            output::error_line(&because);
            code.into()
        }
        Ok(_) => {
            output::error_line("the daemon gave no answer; it is stopping");
            Exit::Failed
        }
        Err(error) => connection_lost(&error),
    }
}

fn render(report: &ReloadReport, terminal: Terminal) -> String {
    let ReloadReport { now, next_deploy, restart } = report;
    let mut lines = Lines::new(terminal);
    if now.is_empty() && next_deploy.is_empty() && restart.is_empty() {
        lines.push("nothing differs");
    }
    for (names, when) in [
        (now, "in effect now"),
        (next_deploy, "in effect with the next deploy"),
        (restart, "in effect after `systemctl restart rollbackd`"),
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
        };
        assert_eq!(
            render(&report, terminal),
            "in effect now: x.mode, x.bake\n\
             in effect after `systemctl restart rollbackd`: daemon.metrics\n"
        );
        assert_eq!(render(&ReloadReport::default(), terminal), "nothing differs\n");
    }
}
