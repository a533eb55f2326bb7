//! Starts a program as another user, through `setpriv` of util-linux.
//!
//! The program gets the uid, the gid and all groups of the user, and no capability. `setpriv` replaces
//! itself by the program, so pid and process group stay. systemd-run would need systemd, and would put
//! the process out of the daemon's reach; the standard library cannot set the groups of a user.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};
use tokio::process::Command;

use crate::config::ReleaseUser;

const SETPRIV: [&str; 2] = ["/usr/bin/setpriv", "/bin/setpriv"];
const ENV: &str = "/usr/bin/env";
const TEST: &str = "/usr/bin/test";
/// A file system that hangs must not hold a check up for longer.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the daemon needs, one of each line: to become the user, to stop its processes, and to recognise
/// them by their environment, a file of the user in `/proc`.
const NEEDED: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::DAC_OVERRIDE), "CAP_DAC_READ_SEARCH"),
];

/// Variables with which the caller of a program decides what code it loads, or from where it takes data.
/// Those that the C library removes for programs that change the user, and all `LD_`.
const LOADER_VARIABLES: [&str; 14] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "LOCALDOMAIN",
    "LOCPATH",
    "MALLOC_TRACE",
    "NIS_PATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "TMPDIR",
    "TZDIR",
    "GNUTLS_SYSTEM_PRIORITY_FILE",
];

/// Whether the daemon may run programs as this user.
///
/// # Errors
/// What it lacks, and what helps.
pub(crate) fn ensure_allowed(user: &ReleaseUser) -> Result<(), String> {
    if user.uid == geteuid().as_raw() {
        return Ok(());
    }
    let name = &user.name;
    let has = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacks: Vec<_> =
        NEEDED.iter().filter(|(it, _)| !has.intersects(*it)).map(|(_, it)| *it).collect();
    if !lacks.is_empty() {
        return Err(format!(
            "the daemon may not run releases as {name}: it lacks {}; run it as root, or give it \
             these, or leave `user` out",
            lacks.join(", ")
        ));
    }
    find_setpriv().map(drop)
}

/// A command that runs a program with these variables, as the user if there is one. `None`: the program
/// runs as the daemon does, and nothing has to be taken from it.
///
/// # Errors
/// The daemon may not do that.
pub(super) fn command_as(
    user: Option<&ReleaseUser>,
    argv: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<Option<Command>, String> {
    if user.is_none() && !gives_capabilities_away() {
        return Ok(None);
    }
    let mut command = Command::new(find_setpriv()?);
    if let Some(user) = user {
        ensure_allowed(user)?;
        command.arg(format!("--reuid={}", user.name)).arg(format!("--regid={}", user.gid));
        command.arg("--init-groups");
    }
    command.args(["--inh-caps=-all", "--ambient-caps=-all", "--"]);
    // setpriv still has the daemon's rights: it must not load code that a release can change. These
    // variables reach the program all the same, from `env`, which runs as the user.
    let (later, now): (Vec<_>, Vec<_>) =
        environment.iter().partition(|(name, _)| is_loader_variable(name));
    if !later.is_empty() {
        command.args([ENV, "--"]);
        command.args(later.iter().map(|(name, value)| format!("{name}={value}")));
    }
    command.args(argv).env_clear().envs(now);
    Ok(Some(command))
}

/// Whether the user may create files in the directory. It is tried as the user, since access control
/// lists and mounts decide too.
///
/// # Errors
/// That it may not, or that this cannot be tried.
pub(crate) async fn ensure_may_create_in(
    user: &ReleaseUser,
    directory: &Path,
) -> Result<(), String> {
    let shown = directory.display();
    let argv = [TEST, "-w", &shown.to_string(), "-a", "-x", &shown.to_string()].map(str::to_owned);
    let Some(mut command) = command_as(Some(user), &argv, &BTreeMap::new())? else { return Ok(()) };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(TEST_TIMEOUT, command.status()).await;
    match status {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(_)) => Err(format!("{} may not create files in {shown}", user.name)),
        Ok(Err(error)) => Err(format!("{shown} cannot be tried as {}: {error}", user.name)),
        Err(_) => Err(format!("{shown} gives no answer")),
    }
}

/// Whether a program would inherit the right to become any user: a daemon that is not root has it in its
/// ambient capabilities.
fn gives_capabilities_away() -> bool {
    let effective = capabilities(None).map(|sets| sets.effective);
    !geteuid().is_root() && effective.is_ok_and(|it| it.contains(CapabilitySet::SETUID))
}

fn is_loader_variable(name: &str) -> bool {
    name.starts_with("LD_") || LOADER_VARIABLES.contains(&name)
}

/// Not by PATH, which a release may have as a variable.
fn find_setpriv() -> Result<&'static str, String> {
    let found = SETPRIV.into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| "`user` needs /usr/bin/setpriv; install util-linux".to_owned())
}
