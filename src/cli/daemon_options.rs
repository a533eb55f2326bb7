//! Finds the daemon, and sends a request to its control socket.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::{self, LoadedConfig, Problems};
use crate::control::{ADMINS_GROUP, ControlClient, READERS_GROUP, Request, Response};

/// The configuration, unless an option or the environment names another one.
pub(super) const DEFAULT_CONFIG_PATH: &str = "/etc/rollbackd/config.toml";
/// The control socket, if the configuration cannot be read.
const DEFAULT_SOCKET_PATH: &str = "/run/rollbackd/control.sock";

/// How a verb finds the daemon.
#[derive(Debug, Args)]
pub(super) struct DaemonOptions {
    /// The daemon's configuration; it names the control socket. After `backtest`: the candidate.
    #[arg(long, global = true, env = "ROLLBACKD_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The daemon's control socket.
    #[arg(long, global = true, env = "ROLLBACKD_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Why the daemon cannot be reached.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The configuration that the operator named cannot be used.
    InvalidConfig(Problems),
    /// No daemon answers, or it does not answer this user.
    NoAnswer {
        socket: PathBuf,
        /// Why this is the default socket, if it is.
        note: String,
        error: io::Error,
    },
}

impl DaemonOptions {
    /// The options among the words of a command line that is not complete yet, else the environment.
    pub(super) fn of_words(words: impl Iterator<Item = String>) -> Self {
        let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let mut found =
            Self { config: variable("ROLLBACKD_CONFIG"), socket: variable("ROLLBACKD_SOCKET") };
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, words.peek().cloned()),
            };
            match option.as_str() {
                "--config" => found.config = value.map(PathBuf::from),
                "--socket" => found.socket = value.map(PathBuf::from),
                _ => (),
            }
        }
        found
    }

    /// The configuration that the options, the environment or the default name.
    pub(super) fn config_path(&self) -> PathBuf {
        config_path(None, self.config.as_deref())
    }

    /// Loads the configuration.
    pub(super) fn load_config(&self) -> Result<LoadedConfig, Problems> {
        config::load(&self.config_path())
    }

    /// Connects to the daemon and sends the request.
    pub(super) async fn connect(&self, request: &Request) -> Result<ControlClient, ConnectError> {
        match self.socket() {
            Ok((socket, note)) => connect_to(socket, note, request).await,
            // A rollback must not wait until a file is repaired.
            Err(ConnectError::InvalidConfig(problems)) => {
                let path = self.config_path();
                let Some(socket) = config::named_control_socket(&path) else {
                    return Err(ConnectError::InvalidConfig(problems));
                };
                let connected = connect_to(socket, String::new(), request).await;
                connected.inspect(|_| report_invalid_config(&path)).map_err(|error| {
                    if error.is_forbidden() { error } else { ConnectError::InvalidConfig(problems) }
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Validates and sends the request; reports an error. The client returns the responses.
    pub(super) async fn send_request(&self, request: &Request) -> Result<ControlClient, Exit> {
        request.validate().map_err(|problem| {
            output::error_line(&problem);
            Exit::InvalidArguments
        })?;
        self.connect(request).await.map_err(|error| {
            let exit = error.report();
            if exit == Exit::NoDaemon && request.is_read_only() {
                self.report_record("SERVICE");
            }
            exit
        })
    }

    /// Prints who can read the record of a service while no daemon answers.
    pub(super) fn report_record(&self, service: &str) {
        let Ok(loaded) = self.load_config() else { return };
        let dir = loaded.settings.state_dir;
        match std::fs::read_dir(&dir) {
            Ok(_) => output::stderr_line(&format!(
                "  without the daemon, `rollbackd timeline {service}` reads the record from disk"
            )),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                output::stderr_line(&format!(
                    "  without the daemon, only its user and root may read the record in {}: run \
                     `sudo rollbackd timeline {service}`",
                    dir.display()
                ));
            }
            Err(_) => (),
        }
    }

    /// Sends a request that has one response, and returns it; reports a refusal or an error.
    pub(super) async fn ask(&self, request: &Request) -> Result<Response, Exit> {
        match self.send_request(request).await?.next_response().await {
            Ok(Some(Response::Refused { code, because, .. })) => {
                output::error_line(&because);
                Err(code.into())
            }
            Ok(Some(response)) => Ok(response),
            Ok(None) => {
                output::error_line("the daemon gave no answer; it is stopping");
                Err(Exit::Failed)
            }
            Err(error) => Err(connection_lost(&error)),
        }
    }

    /// The daemon's socket; if it is the default one, also why. A configuration that the operator
    /// named leads to its own daemon or to none.
    fn socket(&self) -> Result<(PathBuf, String), ConnectError> {
        if let Some(socket) = &self.socket {
            return Ok((socket.clone(), String::new()));
        }
        match self.load_config() {
            Ok(loaded) => Ok((loaded.settings.control_socket, String::new())),
            Err(problems) if self.config.is_some() => Err(ConnectError::InvalidConfig(problems)),
            Err(_) => {
                let path = self.config_path();
                let path = path.display();
                let note =
                    format!(" (the default: {path} is not usable, see `rollbackd check {path}`)");
                Ok((PathBuf::from(DEFAULT_SOCKET_PATH), note))
            }
        }
    }
}

impl ConnectError {
    /// Prints what happened and what to do.
    pub(super) fn report(&self) -> Exit {
        let (socket, note, error) = match self {
            Self::InvalidConfig(problems) => {
                output::error_line(&format!("the configuration cannot be used:\n{problems}"));
                return Exit::InvalidConfig;
            }
            Self::NoAnswer { socket, note, error } => (socket.display(), note, error),
        };
        if self.is_forbidden() {
            output::error_line(&format!(
                "no permission to connect to {socket}: reading needs the group {READERS_GROUP}, \
                 acting also the group {ADMINS_GROUP}, or root\n  add a user with `usermod -aG \
                 {READERS_GROUP},{ADMINS_GROUP} NAME`; it takes effect at the next login"
            ));
            return Exit::Forbidden;
        }
        output::error_line(&format!(
            "no daemon answers on {socket}{note}: {error}\n  start it with `systemctl start \
             rollbackd` or `rollbackd run`, or name its socket with --socket or its configuration \
             with --config"
        ));
        Exit::NoDaemon
    }

    /// Whether this user has no permission.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::NoAnswer { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

async fn connect_to(
    socket: PathBuf,
    note: String,
    request: &Request,
) -> Result<ControlClient, ConnectError> {
    let connection = async {
        let mut client = ControlClient::connect(&socket).await?;
        client.send(request).await?;
        Ok(client)
    };
    connection.await.map_err(|error| ConnectError::NoAnswer { socket, note, error })
}

fn report_invalid_config(path: &Path) {
    let path = path.display();
    output::stderr_line(&format!(
        "{path} has errors, see `rollbackd check {path}`; the daemon runs with what it read before"
    ));
}

/// The configuration that a verb's argument names, else the option or the environment, else the
/// default.
pub(super) fn config_path(argument: Option<&Path>, option: Option<&Path>) -> PathBuf {
    argument.or(option).unwrap_or(Path::new(DEFAULT_CONFIG_PATH)).to_path_buf()
}

/// Reports a response that belongs to another request.
pub(super) fn unexpected_response() -> Exit {
    output::error_line("the daemon's response answers another request; is it another version?");
    Exit::Failed
}

/// Reports that the daemon closed the connection too early.
pub(super) fn connection_lost(error: &io::Error) -> Exit {
    output::error_line(&format!("the daemon closed the connection: {error}"));
    Exit::NoDaemon
}
