//! `rollbackd demo` and the hidden `rollbackd demo-server`, which `demo` starts as its releases.

use clap::Args;

use crate::cli::complete;
use crate::cli::demo_screen::DemoScreen;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::terminal::{Terminal, wrap};
use crate::demo::{self, Fault, Scenario};

/// Where further lines of a wrapped text of the summary begin.
const INDENT: usize = 11;

/// The faults that a shell completes.
const FAULTS: &[&str] = &[
    "total",
    "errors=20%",
    "slow",
    "hang",
    "tool-errors",
    "one-tool",
    "crash-loop",
    "shared-outage",
    "none",
];

/// Show a rollback from end to end on this machine, with real processes and clients.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What goes wrong three seconds after the deploy of the new release: total, errors=20%, slow,
    /// hang, tool-errors, one-tool, crash-loop, shared-outage or none.
    #[arg(long, default_value = "total", add = complete::words_of(FAULTS))]
    fault: Fault,
    /// Requests a second that the clients send.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Sessions hold a state that no other release can take over.
    #[arg(long)]
    sticky: bool,
    /// Serve the status page meanwhile, and print its address.
    #[arg(long)]
    page: bool,
    /// Keep the folder with the configuration, the log and the timelines. Otherwise it stays only if
    /// the demo does not end as it should.
    #[arg(long)]
    keep: bool,
    /// One JSON object on stdout at the end, and the progress on stderr.
    #[arg(long)]
    json: bool,
}

/// Runs the demo. It succeeds if the daemon did what it should: it rolled a bad release back so that
/// clients saw it, or accepted one that was not to blame.
pub(super) async fn run(options: Options) -> Exit {
    let Options { fault, rate, sticky, page, keep, json } = options;
    let screen = DemoScreen::new(json);
    match demo::run(&Scenario { fault, rate, sticky, page }, keep, &screen).await {
        Ok(summary) => {
            let as_expected = summary.is_as_expected();
            if json {
                output::json_line(&summary);
            } else {
                let width = Terminal::stdout().width;
                let summary = summary.to_string();
                let lines = Vec::from_iter(summary.lines().map(|it| wrap(it, width, INDENT)));
                output::stdout_line(&format!("\n{}", lines.join("\n")));
            }
            if as_expected { Exit::Done } else { Exit::Failed }
        }
        Err(why) => {
            output::error_line(&why);
            Exit::Failed
        }
    }
}

/// Runs the MCP server of the demo until a signal, or until its fault ends it.
pub(super) async fn run_server() -> Exit {
    match demo::server::run().await {
        Ok(demo::server::End::Stopped) => Exit::Done,
        Ok(demo::server::End::Crashed) => Exit::Failed,
        Err(why) => {
            output::error_line(&format!("demo-server: {why}"));
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_that_is_completed_is_one() {
        for fault in FAULTS {
            assert!(fault.parse::<Fault>().is_ok(), "{fault}");
        }
    }
}
