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
const START_MAX: Duration = Duration::from_secs(10);
/// Variables that mean one process only.
const OURS_ONLY: [&str; 4] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Where the program lies, as it was called: an upgrade puts another one there, or lets a link
/// lead there. Asked first at the start, since it can not be told after an upgrade.
static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let called = std::env::args_os().next().map(PathBuf::from);
    let path = called.filter(|it| it.components().count() > 1);
    path.and_then(|it| std::path::absolute(it).ok()).or_else(|| std::env::current_exe().ok())
});

/// Remembers where the program lies.
pub(super) fn remember() {
    LazyLock::force(&PROGRAM);
}

fn program() -> io::Result<&'static Path> {
    PROGRAM.as_deref().ok_or_else(|| io::Error::other("it is not known where the program lies"))
}

/// Starts the next daemon for this configuration; our end of the channel to it.
///
/// # Errors
/// When it can not be started, in words.
pub(super) async fn begin(config: &Path) -> Result<UnixStream, String> {
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| format!("there is no socket for it: {error}"))?;
    let program = program().map_err(|error| error.to_string())?;
    let mut between = tokio::process::Command::new(program);
    between.arg("succeed").arg(config).stdin(OwnedFd::from(theirs));
    for name in OURS_ONLY {
        between.env_remove(name);
    }
    let ended = tokio::time::timeout(START_MAX, between.status()).await;
    // Our copy of the other end goes with it: or its end would never be seen.
    drop(between);
    let program = program.display();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(ours),
        Ok(Ok(status)) => Err(format!("{program} did not start: {status}")),
        Ok(Err(error)) => Err(format!("{program} can not be started: {error}")),
        Err(_) => Err(format!("{program} did not start within {} s", START_MAX.as_secs())),
    }
}

/// What the process in between does: it starts the next daemon, which inherits the channel, and
/// ends, so that the next daemon is nobody's child.
///
/// # Errors
/// When it can not be started.
pub fn succeed(config: &Path) -> io::Result<()> {
    let mut next = Command::new(program()?);
    next.arg("run").arg("--succeed").arg(config).stdin(Stdio::inherit());
    next.spawn().map(drop)
}
