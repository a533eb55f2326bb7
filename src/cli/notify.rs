//! `rollbackd notify test`

use clap::{Args, Subcommand};

use crate::cli::complete;
use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::{Request, Response};

/// Test the channels that tell people.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send an example, and show what came back.
    Test {
        /// One channel; all by default.
        #[arg(add = complete::channels())]
        channel: Option<String>,
    },
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Verb::Test { channel } = options.verb;
    let mut client = match daemon.send_request(&Request::NotifyTest { channel }).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let mut exit = Exit::Done;
    loop {
        match client.next_response().await {
            Ok(None) => return exit,
            Ok(Some(Response::Notified { channel, ok, because })) => {
                let result = if ok { "accepted" } else { "FAILED" };
                output::stdout_line(&format!("{channel}: {result}: {because}"));
                if !ok {
                    exit = Exit::Failed;
                }
            }
            Ok(Some(Response::Refused { code, because, .. })) => {
                output::error_line(&because);
                return code.into();
            }
            Ok(Some(_)) => (),
            Err(error) => return connection_lost(&error),
        }
    }
}
