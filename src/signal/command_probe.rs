use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::config::Address;
use crate::model::{ProbeResult, Release};

/// Fills in `{port}`, `{slot}` and `{version}`. A slot on a unix socket has its path for a port.
pub(super) fn fill_placeholders(
    argv: &[String],
    address: &Address,
    release: &Release,
) -> Vec<String> {
    let port = match address {
        Address::Tcp(address) => address.port().to_string(),
        Address::Unix(path) => path.display().to_string(),
    };
    let fill_one = |argument: &String| {
        argument
            .replace("{port}", &port)
            .replace("{slot}", &release.slot.0)
            .replace("{version}", &release.version)
    };
    argv.iter().map(fill_one).collect()
}

/// Runs the command to its end. When this is dropped before, the command and its children are killed.
pub(super) async fn probe(argv: &[String]) -> ProbeResult {
    let Some((program, arguments)) = argv.split_first() else {
        return ProbeResult::Unexpected("the probe command is empty".into());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in ["PATH", "HOME", "LANG"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return ProbeResult::Unexpected(format!(
                "the probe command {program:?} did not start: {error}"
            ));
        }
    };
    let mut group = ProcessGroupGuard(child.id());
    let ended = child.wait().await;
    // Its number may belong to somebody else from here on.
    group.0 = None;
    match ended {
        Ok(status) if status.success() => ProbeResult::Ok,
        Ok(status) => ProbeResult::Unexpected(format!(
            "the probe command ended with {}",
            describe_exit(status)
        )),
        Err(error) => ProbeResult::Unexpected(format!("the probe command was lost: {error}")),
    }
}

fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// A process group that is killed with its owner.
struct ProcessGroupGuard(Option<u32>);

impl Drop for ProcessGroupGuard {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // It may have ended in this moment; then there is nothing to kill.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
