use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use crate::config::Address;
use crate::model::Release;
use crate::open_files;
use crate::signal::http_client::ProbeError;

/// Replaces `{port}`, `{slot}` and `{version}`. For a Unix socket, its path replaces `{port}`.
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

/// Runs the command to its end. A drop before the end kills the command and its children.
pub(super) async fn probe(argv: &[String]) -> Result<(), ProbeError> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(ProbeError::Other("the probe command is empty".into()));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in ["PATH", "HOME", "LANG"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if open_files::is_shortage(&error) => {
            return Err(ProbeError::OwnShortage(error));
        }
        Err(error) => {
            return Err(ProbeError::Other(format!(
                "the probe command {program:?} did not start: {error}"
            )));
        }
    };
    let mut group = ProcessGroupGuard(child.id());
    let ended = child.wait().await;
    // From here on the kernel may reuse its pid.
    group.0 = None;
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(ProbeError::Other(format!("the probe command ended: {}", describe_exit(status))))
        }
        Err(error) => Err(ProbeError::Other(format!("the probe command was lost: {error}"))),
    }
}

fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Kills its process group when it is dropped.
struct ProcessGroupGuard(Option<u32>);

impl Drop for ProcessGroupGuard {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            // A group that just ended needs no kill.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
