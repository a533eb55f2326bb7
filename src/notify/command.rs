//! `command`: a program of the operator, with the notice as JSON on its standard input.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::incident::Notice;
use crate::incident::text::clean_text;
use crate::notify::retry::Delivery;

/// The most that is read of its output, in bytes. The rest is read and dropped, so that it can end.
const OUTPUT_MAX: usize = 64 * 1024;
/// The most characters of its output that are shown.
const SHOWN_MAX: usize = 120;
/// The variables that it inherits.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Runs the program, in a process group of its own, which is killed at the end of the time.
pub(super) async fn run(words: &[String], notice: &Notice, timeout: Duration) -> Delivery {
    let Some((program, arguments)) = words.split_first() else {
        return Delivery::Rejected("the command is empty".to_owned());
    };
    let Ok(mut input) = serde_json::to_vec(notice) else {
        return Delivery::Rejected("the notice cannot be written as JSON".to_owned());
    };
    input.push(b'\n');
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).kill_on_drop(true).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("ROLLBACKD_NOTICE_ID", &notice.id).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Delivery::failed(format!("cannot start {program}: {error}")),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let ended = tokio::time::timeout(timeout, converse(&mut child, &input)).await;
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        // Also what it left behind. The group can be gone already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    match ended {
        Ok(Ok((status, output))) => judge(status, &output),
        Ok(Err(error)) => Delivery::failed(format!("cannot run {program}: {error}")),
        Err(_) => {
            let _ = child.wait().await;
            Delivery::failed(format!("{program} did not end within {} s", timeout.as_secs()))
        }
    }
}

async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input may still succeed.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), out, err, status) = tokio::join!(write, read(stdout), read(stderr), child.wait());
    let output = if err.is_empty() { out } else { err };
    Ok((status?, output))
}

/// Reads to the end, and keeps the beginning.
async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT_MAX.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}

fn judge(status: ExitStatus, output: &[u8]) -> Delivery {
    let output = clean_text(&String::from_utf8_lossy(output), SHOWN_MAX);
    let separator = if output.is_empty() { "" } else { ": " };
    match status.success() {
        true => Delivery::Accepted(format!("exit 0{separator}{output}")),
        false => Delivery::failed(format!("{status}{separator}{output}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::example::hostile;

    async fn shell(script: &str, timeout: Duration) -> Delivery {
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        run(&words, &hostile(), timeout).await
    }

    const ENOUGH: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_gets_the_notice_and_its_exit_decides() {
        let script = "read line; case $line in *weather/7/4*) echo told; exit 0;; esac; exit 3";
        assert_eq!(shell(script, ENOUGH).await, Delivery::Accepted("exit 0: told".to_owned()));
        let failed = shell("echo no >&2; exit 3", ENOUGH).await;
        assert_eq!(failed, Delivery::failed("exit status: 3: no"));
        let words = ["/no/such/program".to_owned()];
        let failed = run(&words, &hostile(), ENOUGH).await;
        assert!(matches!(failed, Delivery::Failed { .. }), "{failed:?}");
    }

    #[tokio::test]
    async fn a_program_that_floods_or_hangs_is_bounded() {
        let flood = shell("head -c 3000000 /dev/zero | tr '\\0' x", ENOUGH).await;
        assert!(matches!(flood, Delivery::Accepted(text) if text.len() < 200));
        // Its own child holds the pipe open.
        let hangs = shell("sleep 1000 & sleep 1000", Duration::from_millis(200)).await;
        assert!(
            matches!(hangs, Delivery::Failed { because, .. } if because.contains("did not end"))
        );
    }
}
