//! The command line: one file for each verb, and what verbs share.
//!
//! A verb sends a request to the daemon ([`daemon_options`]), prints the responses ([`follow`],
//! [`progress`], [`output`]) and returns an [`exit`] code. It decides nothing itself, so it cannot
//! disagree with the daemon.

mod action;
mod ask;
mod backtest;
mod check;
mod complete;
mod daemon_options;
mod demo;
mod demo_screen;
mod deploy;
mod evidence;
mod exit;
mod explain;
mod follow;
mod hold;
mod incidents;
mod init;
mod notify;
mod output;
mod postmortem;
mod postmortem_edit;
mod probe;
mod progress;
mod reconnect;
mod reload;
mod report;
mod rollback;
mod run;
mod schema;
mod status;
mod status_lines;
mod terminal;
mod timeline;
mod trial_lines;
mod unjudged;

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::CompleteEnv;

pub use crate::cli::complete::completion_script;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::daemon::{InheritedListeners, StartMode};

/// How long the end of the process waits for reads and writes that have begun.
const BLOCKING_TASKS_TIMEOUT: Duration = Duration::from_secs(1);

/// Rolls an MCP server back to the previous release when the new one misses its objectives.
#[derive(Debug, Parser)]
#[command(name = "rollbackd", version, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    daemon: DaemonOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground.
    Run(run::Options),
    Init(init::Options),
    /// Check a configuration and report every problem in it.
    Check(check::Options),
    /// Print a JSON schema of the configuration, for editors.
    Schema,
    /// Start a new release, wait until it is ready, and give it the traffic.
    Deploy(deploy::Options),
    /// Show the state of every service.
    Status(status::Options),
    /// Explain why a service is where it is, what would change that, and which settings decide.
    Explain(explain::Options),
    /// Make the daemon read its configuration again.
    Reload(reload::Options),
    /// Roll back to the previous release. During a ramp or a bake this aborts the deploy.
    #[command(visible_alias = "abort")]
    Rollback(rollback::Options),
    /// Accept the release on trial now: end its ramp or its bake.
    Promote(hold::Options),
    /// Stop automatic rollbacks of a service until `resume`.
    Hold(hold::Options),
    /// End a hold.
    Resume(hold::Options),
    /// Show what happened in a deploy, and why.
    Timeline(timeline::Options),
    /// List incidents, newest first.
    Incidents(incidents::Options),
    /// Show, edit or close the post-mortem of an incident.
    Postmortem(postmortem::Options),
    /// List, add or finish action items of incidents.
    Action(action::Options),
    /// Acknowledge the page of a service.
    Ack(incidents::AckOptions),
    /// Test the channels that tell people.
    Notify(notify::Options),
    /// List the deploys of a service and how they ended.
    History(incidents::HistoryOptions),
    /// Show statistics over deploys and incidents.
    Report(report::Options),
    /// Replay recorded traffic with the current settings and with others.
    Backtest(Box<backtest::Options>),
    /// Speak to an MCP server as a client does, once or again and again.
    Probe(probe::Options),
    /// Show a rollback of a bad release on this machine.
    Demo(demo::Options),
    /// Run the MCP server of the demo.
    #[command(hide = true)]
    DemoServer,
    /// Start a daemon that takes over from the running one, in a process group of its own. Before
    /// 0.2.0 the verb was `succeed`: an old daemon starts its successor with that name.
    #[command(hide = true, alias = "succeed")]
    SpawnSuccessor(run::Options),
}

/// Prints what is wrong with the arguments. The usage beside it lists each option with a value as one
/// that is needed, also those whose value comes from the environment: they are left out.
fn exit_with_usage(error: clap::Error) -> ! {
    if error.use_stderr() {
        let mut command = Cli::command();
        for option in ["config", "socket"] {
            command = command.mut_arg(option, |it| it.env(Resettable::Reset));
        }
        command.get_matches();
    }
    error.exit()
}

/// Runs the verb that the arguments name.
pub fn main() -> ExitCode {
    CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let Cli { daemon, verb } = Cli::try_parse().unwrap_or_else(|error| exit_with_usage(error));
    // Inherited descriptors must be taken before the runtime starts threads.
    let start_mode = match &verb {
        Verb::Run(options) => options.start_mode(),
        Verb::SpawnSuccessor(options) => return run::spawn_successor(options, daemon.config),
        _ => Ok(StartMode::Fresh(InheritedListeners::default())),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error_line(&format!("cannot start the runtime: {error}"));
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(async {
        match verb {
            Verb::Run(options) => run::run(options, daemon.config, start_mode).await.into(),
            Verb::Init(options) => init::run(&options).into(),
            Verb::Check(options) => check::run(&options, daemon.config).await.into(),
            Verb::Deploy(options) => deploy::run(options, &daemon).await.into(),
            Verb::Status(options) => status::run(options, &daemon).await.into(),
            Verb::Schema => schema::run().into(),
            Verb::Explain(options) => explain::run(options, &daemon).await.into(),
            Verb::Reload(options) => reload::run(&options, &daemon).await.into(),
            Verb::Rollback(options) => rollback::run(options, &daemon).await.into(),
            Verb::Promote(options) => hold::promote(options, &daemon).await.into(),
            Verb::Hold(options) => hold::hold(options, &daemon).await.into(),
            Verb::Resume(options) => hold::resume(options, &daemon).await.into(),
            Verb::Timeline(options) => timeline::run(options, &daemon).await.into(),
            Verb::Incidents(options) => incidents::run(options, &daemon).await.into(),
            Verb::Postmortem(options) => postmortem::run(options, &daemon).await.into(),
            Verb::Action(options) => action::run(options, &daemon).await.into(),
            Verb::Ack(options) => incidents::acknowledge(options, &daemon).await.into(),
            Verb::History(options) => incidents::history(options, &daemon).await.into(),
            Verb::Notify(options) => notify::run(options, &daemon).await.into(),
            Verb::Report(options) => report::run(options, &daemon).await.into(),
            Verb::Backtest(options) => backtest::run(*options, &daemon).await.into(),
            Verb::Probe(options) => probe::run(options).await.into(),
            Verb::Demo(options) => demo::run(options).await.into(),
            Verb::DemoServer => demo::run_server().await.into(),
            Verb::SpawnSuccessor(_) => Exit::Failed.into(),
        }
    });
    // Not a drop: that would wait for a read or write that does not end.
    runtime.shutdown_timeout(BLOCKING_TASKS_TIMEOUT);
    exit
}
