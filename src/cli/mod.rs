//! The verbs, one file each. A verb fills in a request, hands it to the daemon and prints what
//! comes back, so that it can not disagree with the daemon.

pub(crate) mod check;
mod deploy;
pub(crate) mod exit;
mod hold;
pub(crate) mod output;
mod progress;
mod rollback;
mod run;
mod status;
mod timeline;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use exit::Exit;

use crate::config;
use crate::control::{ADMINS_GROUP, ControlClient, READERS_GROUP, Request};
use crate::daemon::{InheritedListeners, StartMode};

/// Where the configuration lies unless somebody says otherwise.
pub(crate) const DEFAULT_CONFIG_PATH: &str = "/etc/rollbackd/config.toml";
/// Where the daemon listens unless its configuration says otherwise.
const DEFAULT_SOCKET_PATH: &str = "/run/rollbackd/control.sock";

/// Puts the previous release of an MCP server back when the new one breaks its promise.
#[derive(Debug, Parser)]
#[command(name = "rollbackd", version, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    daemon: DaemonOptions,
    #[command(subcommand)]
    verb: Verb,
}

/// How a verb finds the daemon.
#[derive(Debug, Args)]
pub(crate) struct DaemonOptions {
    /// The daemon's configuration; tells where its socket is. After `backtest`: the candidate.
    #[arg(long, global = true, env = "ROLLBACKD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The daemon's control socket.
    #[arg(long, global = true, env = "ROLLBACKD_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon in the foreground.
    Run(run::Options),
    /// Check a configuration and report every problem in it.
    Check(check::Options),
    /// Start a new release, prove it ready, and give it the traffic.
    Deploy(deploy::Options),
    /// How every service stands.
    Status(status::Options),
    /// Go back to the previous release.
    Rollback(rollback::Options),
    /// Hands off: no rollback by the daemon until `resume`.
    Hold(hold::Options),
    /// Lift a hold.
    Resume(hold::Options),
    /// What happened in a deploy, and why.
    Timeline(timeline::Options),
    /// Replay what was recorded, with the current limits and with others.
    Backtest(Box<crate::backtest::Options>),
    /// See a bad release being put back, on this machine.
    Demo(crate::demo::Options),
    /// The demo's MCP server.
    #[command(hide = true)]
    DemoServer,
    /// Start a daemon that takes over, as nobody's child.
    #[command(hide = true)]
    Succeed(run::Options),
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let Cli { daemon, verb } = Cli::parse();
    // While there are no other threads.
    let start_mode = match &verb {
        Verb::Run(options) => options.start_mode(),
        Verb::Succeed(options) => return run::spawn_successor(options, daemon.config),
        _ => Ok(StartMode::Fresh(InheritedListeners::default())),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error_line(&format!("failed to start: {error}"));
            return Exit::Failed.into();
        }
    };
    runtime.block_on(async {
        match verb {
            Verb::Run(options) => run::run(options, daemon.config, start_mode).await.into(),
            Verb::Check(options) => check::run(&options, daemon.config).into(),
            Verb::Deploy(options) => deploy::run(options, &daemon).await.into(),
            Verb::Status(options) => status::run(options, &daemon).await.into(),
            Verb::Rollback(options) => rollback::run(options, &daemon).await.into(),
            Verb::Hold(options) => hold::hold(options, &daemon).await.into(),
            Verb::Resume(options) => hold::resume(options, &daemon).await.into(),
            Verb::Timeline(options) => timeline::run(options, &daemon).await.into(),
            Verb::Backtest(options) => crate::backtest::run(*options, &daemon).await.into(),
            Verb::Demo(options) => crate::demo::run(options).await,
            Verb::DemoServer => crate::demo::server::main().await,
            Verb::Succeed(_) => Exit::Failed.into(),
        }
    })
}

impl DaemonOptions {
    /// Where the daemon listens, as far as can be told.
    fn socket_path(&self) -> PathBuf {
        if let Some(socket) = &self.socket {
            return socket.clone();
        }
        config::load(&self.config_path()).map_or_else(
            |_| PathBuf::from(DEFAULT_SOCKET_PATH),
            |checked| checked.settings.control_socket,
        )
    }

    /// Says so when the configuration does not tell where the daemon listens.
    fn default_socket_note(&self) -> String {
        let path = self.config_path();
        if self.socket.is_some() || config::load(&path).is_ok() {
            return String::new();
        }
        let path = path.display();
        format!(" (the usual place; {path} can not be used: see `rollbackd check {path}`)")
    }

    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_CONFIG_PATH))
    }

    /// Asks the daemon; its answer can be read from the client.
    async fn send_request(&self, request: &Request) -> Result<ControlClient, Exit> {
        request.validate().map_err(|problem| {
            output::error_line(&problem);
            Exit::InvalidArguments
        })?;
        let socket = self.socket_path();
        let note = self.default_socket_note();
        let connection = async {
            let mut client = ControlClient::connect(&socket).await?;
            client.send(request).await?;
            Ok(client)
        };
        connection.await.map_err(|error: std::io::Error| {
            let socket = socket.display();
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                output::error_line(&format!(
                    "you may not connect to {socket}: to look takes the group {READERS_GROUP}, to act the \
                     group {ADMINS_GROUP} as well, or root\n  add a user with `usermod -aG \
                     {READERS_GROUP},{ADMINS_GROUP} NAME`; it counts from the next login"
                ));
                return Exit::Forbidden;
            }
            output::error_line(&format!(
                "no daemon answers on {socket}{note}: {error}\n  start it with `rollbackd run`, or name \
                 its socket with --socket or its configuration with --config"
            ));
            Exit::NoDaemon
        })
    }
}
