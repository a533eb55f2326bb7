//! Runs a program that prints what is wanted, with limits.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// How long the program may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the program prints, at most `bytes_max` bytes of it.
///
/// # Errors
/// It cannot be started, or takes longer than five seconds.
pub(super) async fn read_output(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    bytes_max: u64,
) -> io::Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut bytes = Vec::new();
    let read = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(bytes_max).read_to_end(&mut bytes).await?;
        }
        // At the limit it would wait for a reader.
        let _ = child.start_kill();
        child.wait().await.map(drop)
    };
    tokio::time::timeout(TIMEOUT, read).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_prints_without_end_is_stopped() {
        assert_eq!(read_output("yes", ["y"], 4).await.unwrap(), b"y\ny\n");
        assert_eq!(read_output("echo", ["a"], 100).await.unwrap(), b"a\n");
        read_output("/nonexistent/program", ["a"], 4).await.unwrap_err();
    }
}
