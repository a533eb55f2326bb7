//! `rollbackd rollback`

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use clap::Args;

use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::follow::{Followed, Goal, follow};
use crate::cli::hold::NO_REASON;
use crate::cli::output;
use crate::control::Request;

/// Longest answer to the question, in bytes.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Roll back to the previous release.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The service.
    service: String,
    /// Do not wait for the requests in flight.
    #[arg(long)]
    cut: bool,
    /// Also to a release whose artifact changed since its deploy.
    #[arg(long)]
    force: bool,
    /// The reason; it goes into the timeline. Without it, a terminal is asked for one.
    #[arg(long, value_name = "REASON")]
    because: Option<String>,
    /// Return as soon as the daemon has recorded the order.
    #[arg(long)]
    no_wait: bool,
    /// One JSON object a line, as the daemon sends it.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, cut, force, because, no_wait, json } = options;
    let because = match because {
        Some(because) => because,
        None => match ask_reason(&service) {
            Ok(because) => because,
            Err(exit) => return exit,
        },
    };
    let wait = !no_wait;
    let followed = Followed { service: service.clone(), goal: Goal::Rollback, wait, json };
    let request = Request::Rollback { service, cut, force, because, wait };
    match daemon.send_request(&request).await {
        Ok(client) => follow(client, daemon, &followed).await,
        Err(exit) => exit,
    }
}

/// Asks for the reason on a terminal. An end of the input is no rollback: the operator may have
/// changed their mind.
fn ask_reason(service: &str) -> Result<String, Exit> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(NO_REASON.to_owned());
    }
    let mut stderr = io::stderr().lock();
    let _: io::Result<()> = write!(
        stderr,
        "Why does {service} go back? It goes into the timeline; Enter for none, Ctrl-C to stop: "
    )
    .and_then(|()| stderr.flush());
    drop(stderr);
    let mut line = Vec::new();
    for byte in io::stdin().lock().take(ANSWER_BYTES_MAX).bytes() {
        match byte {
            Ok(b'\n') => {
                let line = String::from_utf8_lossy(&line);
                let reason = line.trim();
                let reason = if reason.is_empty() { NO_REASON } else { reason };
                return Ok(reason.to_owned());
            }
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    output::error_line("no reason was given to the end; nothing was rolled back");
    Err(Exit::InvalidArguments)
}
