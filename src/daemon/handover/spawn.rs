//! Starts the next daemon: the program that is on disk now. A process in between starts it and ends, so
//! that the next daemon is no child of this one and the service manager can supervise it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// How long the process in between may take.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Variables that are valid for one process only.
const PER_PROCESS_VARIABLES: [&str; 4] =
    ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The path of the program as it was called: an upgrade replaces the file or the link there. The path is
/// resolved at the start, because it is unknown after an upgrade.
static PROGRAM_PATH: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let called = std::env::args_os().next().map(PathBuf::from);
    let path = called.filter(|it| it.components().count() > 1);
    path.and_then(|it| std::path::absolute(it).ok()).or_else(|| std::env::current_exe().ok())
});

/// Resolves the path of the program.
pub(in crate::daemon) fn resolve_program_path() {
    LazyLock::force(&PROGRAM_PATH);
}

fn program_path() -> io::Result<&'static Path> {
    PROGRAM_PATH.as_deref().ok_or_else(|| io::Error::other("the path of the program is unknown"))
}

/// Starts the next daemon for this configuration; this end of the channel to it.
///
/// # Errors
/// When it cannot be started.
pub(super) async fn spawn_detached(config: &Path) -> Result<UnixStream, String> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| format!("cannot make a socket pair: {error}"))?;
    let program = program_path().map_err(|error| error.to_string())?;
    let mut intermediate = tokio::process::Command::new(program);
    intermediate.arg("succeed").arg(config).stdin(OwnedFd::from(theirs));
    for name in PER_PROCESS_VARIABLES {
        intermediate.env_remove(name);
    }
    let exit = tokio::time::timeout(SPAWN_TIMEOUT, intermediate.status()).await;
    // Closes the copy of the other end: otherwise its end of file would never arrive.
    drop(intermediate);
    let program = program.display();
    match exit {
        Ok(Ok(status)) if status.success() => Ok(ours),
        Ok(Ok(status)) => Err(format!("{program} did not start: {status}")),
        Ok(Err(error)) => Err(format!("cannot start {program}: {error}")),
        Err(_) => Err(format!("{program} did not start within {} s", SPAWN_TIMEOUT.as_secs())),
    }
}

/// The work of the process in between: starts the next daemon, which inherits the channel.
///
/// # Errors
/// When it cannot be started.
pub fn spawn_successor(config: &Path) -> io::Result<()> {
    let mut successor = Command::new(program_path()?);
    successor.arg("run").arg("--succeed").arg(config).stdin(Stdio::inherit());
    successor.spawn().map(drop)
}
