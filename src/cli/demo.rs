//! `rollbackd demo` and the hidden `rollbackd demo-server`, which `demo` starts as its releases.

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::demo::{self, Fault};

/// Show a rollback from end to end on this machine, with real processes and clients.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What the new release does wrong three seconds after its deploy: total, errors=20%, slow,
    /// hang, tool-errors or crash-loop.
    #[arg(long, default_value = "total")]
    fault: Fault,
    /// Requests a second that the clients send.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// One JSON object on stdout at the end, and the progress on stderr.
    #[arg(long)]
    json: bool,
}

/// Runs the demo. It is done only after a rollback that clients saw succeed.
pub(super) async fn run(Options { fault, rate, json }: Options) -> Exit {
    let print_progress = if json { output::stderr_line } else { output::stdout_line };
    match demo::run(fault, rate, print_progress).await {
        Ok(summary) => {
            if json {
                output::json_line(&summary);
            } else {
                output::stdout_line(&format!("\n{summary}"));
            }
            if summary.is_clean_rollback() { Exit::Done } else { Exit::Failed }
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
