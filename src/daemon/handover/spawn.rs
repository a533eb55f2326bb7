//! How the next daemon is started: the program that lies on disk now, and as a child of nobody, so
//! that the service manager can watch over it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// How long the process in between may take.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Variables that mean one process only.
const PER_PROCESS_VARIABLES: [&str; 4] =
    ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Where the program lies, as it was called: an upgrade puts another one there, or lets a link
/// lead there. Asked first at the start, since it can not be told after an upgrade.
static PROGRAM_PATH: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let called = std::env::args_os().next().map(PathBuf::from);
    let path = called.filter(|it| it.components().count() > 1);
    path.and_then(|it| std::path::absolute(it).ok()).or_else(|| std::env::current_exe().ok())
});

/// Remembers where the program lies.
pub(super) fn resolve_program_path() {
    LazyLock::force(&PROGRAM_PATH);
}

fn program_path() -> io::Result<&'static Path> {
    PROGRAM_PATH
        .as_deref()
        .ok_or_else(|| io::Error::other("it is not known where the program lies"))
}

/// Starts the next daemon for this configuration; our end of the channel to it.
///
/// # Errors
/// When it can not be started, in words.
pub(super) async fn spawn_detached(config: &Path) -> Result<UnixStream, String> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| format!("there is no socket for it: {error}"))?;
    let program = program_path().map_err(|error| error.to_string())?;
    let mut intermediate = tokio::process::Command::new(program);
    intermediate.arg("succeed").arg(config).stdin(OwnedFd::from(theirs));
    for name in PER_PROCESS_VARIABLES {
        intermediate.env_remove(name);
    }
    let exit = tokio::time::timeout(SPAWN_TIMEOUT, intermediate.status()).await;
    // Our copy of the other end goes with it: or its end would never be seen.
    drop(intermediate);
    let program = program.display();
    match exit {
        Ok(Ok(status)) if status.success() => Ok(ours),
        Ok(Ok(status)) => Err(format!("{program} did not start: {status}")),
        Ok(Err(error)) => Err(format!("{program} can not be started: {error}")),
        Err(_) => Err(format!("{program} did not start within {} s", SPAWN_TIMEOUT.as_secs())),
    }
}

/// What the process in between does: it starts the next daemon, which inherits the channel, and
/// ends, so that the next daemon is nobody's child.
///
/// # Errors
/// When it can not be started.
pub fn spawn_successor(config: &Path) -> io::Result<()> {
    let mut successor = Command::new(program_path()?);
    successor.arg("run").arg("--succeed").arg(config).stdin(Stdio::inherit());
    successor.spawn().map(drop)
}
