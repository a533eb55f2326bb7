//! Processes of releases, with `/bin/sh` for a server.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/async_wait.rs"]
mod async_wait;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use rollbackd::act::{Process, ProcessSpec, find_orphans};
use rollbackd::config::{Address, CommandRuntime, ReleaseUser};
use rollbackd::model::{Release, ReleaseNumber, Slot};
use tempfile::TempDir;

/// A spec that runs a shell script as release `number` in slot blue.
fn spec(home: &TempDir, number: u32, script: &str) -> ProcessSpec {
    let argv = ["/bin/sh", "-c", script, "{version}", "{artifact}", "{slot}", "{port}"];
    ProcessSpec {
        command: CommandRuntime {
            argv: argv.map(str::to_owned).to_vec(),
            env: BTreeMap::from([("A".into(), "config".into()), ("B".into(), "config".into())]),
            working_dir: None,
            user: None,
            stop_timeout: Duration::from_millis(300),
        },
        release: Release {
            version: "v1".into(),
            number: ReleaseNumber(number),
            slot: Slot("blue".into()),
            artifact: Some("/srv/app".into()),
            digest: None,
            environment: BTreeMap::from([
                ("B".into(), "deploy".into()),
                ("PORT".into(), "1".into()),
            ]),
            same_version: false,
        },
        address: Address::Tcp(own_address()),
        service: "files".into(),
        state_dir: home.path().to_owned(),
    }
}

/// An address of 127.0.0.0/8 for one test alone. A start binds the address for a moment to see that it
/// is free: with one address for all, a test could meet the start of another.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SocketAddr::from(([127, 40, 1, NEXT.fetch_add(1, Ordering::Relaxed)], 4001))
}

fn temp_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn output(spec: &ProcessSpec) -> PathBuf {
    spec.state_dir.join("files/output-blue.log")
}

/// Waits for `text` in a file.
async fn wait_for(path: &Path, text: &str) -> String {
    let poll = || {
        let have = fs::read_to_string(path).unwrap_or_default();
        std::future::ready(have.contains(text).then_some(have))
    };
    async_wait::wait_for(&format!("{text:?} in {}", path.display()), poll).await
}

fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn pid_in(path: &Path) -> u32 {
    wait_for(path, "\n").await.trim().parse().unwrap()
}

#[tokio::test]
async fn exit_status_is_described() {
    let home = temp_dir();
    for (script, words) in [("exit 3", "exit code 3"), ("kill -9 $$", "killed by signal 9")] {
        let mut process = Process::start(&spec(&home, 1, script)).unwrap();
        assert_eq!(process.wait_exit().await, words);
        assert_eq!(process.wait_exit().await, words);
        assert_eq!(process.stop().await.as_deref(), Ok(words));
    }
}

#[tokio::test]
async fn missing_command_fails_to_start() {
    let home = temp_dir();
    let mut spec = spec(&home, 1, "");
    spec.command.argv = vec!["/nonexistent/server".into()];
    let error = Process::start(&spec).unwrap_err();
    assert!(error.contains("\"/nonexistent/server\" cannot be started"), "{error}");
    spec.command.argv = vec!["/bin/true".into()];
    spec.command.working_dir = Some("/nonexistent".into());
    assert!(Process::start(&spec).unwrap_err().contains("in /nonexistent"));
}

#[tokio::test]
async fn arguments_and_environment_match_the_documentation() {
    let home = temp_dir();
    let mut spec =
        spec(&home, 7, "echo \"$0 $1 $2 $3\"; env | sort; ls -l /proc/$$/fd; echo done >&2");
    let mut process = Process::start(&spec).unwrap();
    assert_eq!(process.wait_exit().await, "exit code 0");
    let seen = wait_for(&output(&spec), "done\n").await;
    let start = "--- rollbackd starts deploy 7: v1 ---\nv1 /srv/app blue 4001\n";
    assert!(seen.starts_with(start), "{seen}");
    assert!(seen.ends_with("done\n"), "{seen}");
    assert!(seen.contains("0 -> /dev/null"), "{seen}");
    let owner = format!("ROLLBACKD_OWNER={}", home.path().display());
    let mut expected = vec![
        "A=config",
        "B=deploy",
        "PORT=4001",
        "ROLLBACKD_ARTIFACT=/srv/app",
        "ROLLBACKD_NUMBER=7",
        &owner,
        "ROLLBACKD_SERVICE=files",
        "ROLLBACKD_SLOT=blue",
        "ROLLBACKD_VERSION=v1",
    ];
    let lines: Vec<_> = seen.lines().collect();
    expected.retain(|line| !lines.contains(line));
    assert!(expected.is_empty(), "{expected:?} are missing in {seen}");
    // The shell adds PWD, _ and SHLVL itself; the release inherits nothing else.
    let known = ["A", "B", "PORT", "PATH", "HOME", "LANG", "PWD", "_", "SHLVL", "OLDPWD"];
    for (name, _) in lines.iter().filter_map(|line| line.split_once('=')) {
        assert!(known.contains(&name) || name.starts_with("ROLLBACKD_"), "{name} in {seen}");
    }
    let mode = fs::metadata(output(&spec)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    spec.address = Address::Unix("/run/blue.sock".into());
    spec.release.environment.clear();
    Process::start(&spec).unwrap().wait_exit().await;
    let seen = fs::read_to_string(output(&spec)).unwrap();
    assert!(seen.contains("\nSOCKET=/run/blue.sock\n"), "{seen}");
}

#[tokio::test]
async fn long_output_file_is_truncated_before_start() {
    let home = temp_dir();
    let spec = spec(&home, 1, "echo new");
    fs::create_dir_all(output(&spec).parent().unwrap()).unwrap();
    fs::write(output(&spec), vec![b'x'; 9 * 1024 * 1024]).unwrap();
    Process::start(&spec).unwrap().wait_exit().await;
    let new = "--- rollbackd starts deploy 1: v1 ---\nnew\n";
    assert_eq!(fs::read_to_string(output(&spec)).unwrap(), new);
}

#[tokio::test]
async fn growing_output_file_is_truncated() {
    let home = temp_dir();
    let spec = spec(
        &home,
        1,
        "head -c 20000000 /dev/zero | tr '\\0' x; echo; sleep 1; echo last; sleep 60",
    );
    let process = Process::start(&spec).unwrap();
    let left = wait_for(&output(&spec), "last\n").await;
    assert!(left.len() < 1_000_000, "{} bytes are left", left.len());
    process.stop().await.unwrap();
}

#[tokio::test]
async fn stop_sends_sigterm_first() {
    let home = temp_dir();
    let spec = spec(
        &home,
        1,
        "trap 'echo bye; exit 0' TERM; echo up; for i in $(seq 900); do sleep 0.02; done",
    );
    let process = Process::start(&spec).unwrap();
    wait_for(&output(&spec), "up").await;
    assert_eq!(process.stop().await.as_deref(), Ok("exit code 0"));
    assert!(fs::read_to_string(output(&spec)).unwrap().contains("bye"));
}

#[tokio::test]
async fn stop_kills_unresponsive_process_and_children() {
    let home = temp_dir();
    let script =
        "trap '' TERM; sleep 60 & echo $! > \"$PIDFILE\"; for i in $(seq 300); do sleep 0.1; done";
    let mut spec = spec(&home, 1, script);
    let file = home.path().join("pid");
    spec.command.env.insert("PIDFILE".into(), file.display().to_string());
    let process = Process::start(&spec).unwrap();
    let (leader, child) = (process.pid(), pid_in(&file).await);
    assert_eq!(process.stop().await.as_deref(), Ok("killed by signal 9"));
    assert!(!is_alive(leader) && !is_alive(child));
}

#[tokio::test]
async fn stop_after_exit_ends_remaining_children() {
    let home = temp_dir();
    // One child in the group of its parent, one in a group of its own.
    let script =
        "sleep 60 & echo $! > \"$PIDFILE\"; setsid sleep 60 & echo $! > \"$PIDFILE.2\"; exit 1";
    let mut spec = spec(&home, 1, script);
    let file = home.path().join("pid");
    spec.command.env.insert("PIDFILE".into(), file.display().to_string());
    let mut process = Process::start(&spec).unwrap();
    assert_eq!(process.wait_exit().await, "exit code 1");
    let children = [pid_in(&file).await, pid_in(&home.path().join("pid.2")).await];
    assert!(children.into_iter().all(is_alive));
    assert_eq!(process.stop().await.as_deref(), Ok("exit code 1"));
    assert!(!children.into_iter().any(is_alive));
}

#[tokio::test]
async fn process_is_adopted_after_a_crash() {
    let home = temp_dir();
    // The helper in a session of its own is not the release.
    let spec = spec(&home, 4, "setsid sleep 60 & echo up; for i in $(seq 300); do sleep 0.1; done");
    let process = Process::start(&spec).unwrap();
    let pid = process.pid();
    wait_for(&output(&spec), "up").await;
    drop(process);
    assert!(is_alive(pid));

    let mut other = spec.clone();
    other.release.number = ReleaseNumber(5);
    assert!(Process::adopt(&other).is_none());
    other.release.number = ReleaseNumber(4);
    other.state_dir = "/elsewhere".into();
    assert!(Process::adopt(&other).is_none());

    let mut adopted = Process::adopt(&spec).unwrap();
    assert_eq!(adopted.pid(), pid);
    let early = tokio::time::timeout(Duration::from_millis(200), adopted.wait_exit()).await;
    assert!(early.is_err(), "it is alive");
    assert_eq!(adopted.stop().await.as_deref(), Ok("gone"));
    assert!(!is_alive(pid));
    assert!(Process::adopt(&spec).is_none());
    assert!(find_orphans(home.path(), "files").is_empty());
}

#[tokio::test]
async fn exit_of_an_adopted_process_is_detected() {
    let home = temp_dir();
    let spec = spec(&home, 4, "sleep 0.5; exit 1");
    drop(Process::start(&spec).unwrap());
    let mut adopted = Process::adopt(&spec).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(5), adopted.wait_exit()).await;
    assert_eq!(end.as_deref(), Ok("gone"));
}

#[tokio::test]
async fn orphans_are_listed_and_stopped() {
    let home = temp_dir();
    let old = Process::start(&spec(
        &home,
        1,
        "trap '' TERM; echo up; for i in $(seq 300); do sleep 0.1; done",
    ));
    let new = Process::start(&spec(&home, 2, "for i in $(seq 300); do sleep 0.1; done"));
    let (old, new) = (old.unwrap().pid(), new.unwrap().pid());
    wait_for(&output(&spec(&home, 1, "")), "up").await;
    assert!(find_orphans(home.path(), "other").is_empty());
    let mut found = find_orphans(home.path(), "files");
    found.sort_by_key(|orphan| orphan.number);
    let seen: Vec<_> =
        found.iter().map(|orphan| (orphan.number.0, orphan.slot.0.as_str(), orphan.pid)).collect();
    assert_eq!(seen, [(1, "blue", old), (2, "blue", new)]);
    for orphan in found {
        orphan.stop(Duration::from_millis(200)).await.unwrap();
    }
    assert!(!is_alive(old) && !is_alive(new));
}

/// A log that can be read.
#[derive(Clone, Default)]
struct SharedLog(Arc<Mutex<Vec<u8>>>);

impl io::Write for SharedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn output_is_logged_up_to_its_limit() {
    let log = SharedLog::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let home = temp_dir();
    let mut spec = spec(&home, 1, "for i in $(seq 300); do echo line-$i; done; printf end");
    spec.service = "chatty".into();
    let mut process = Process::start(&spec).unwrap();
    process.wait_exit().await;
    process.stop().await.unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mine = log.lines().filter(|line| line.contains("service=chatty"));
    let (relayed, other): (Vec<_>, Vec<_>) = mine.partition(|line| line.contains(": line-"));
    assert_eq!(relayed.len(), 200, "{log}");
    assert!(relayed.iter().all(|line| line.contains("release=v1")), "{log}");
    // The 101st is the end without a newline.
    assert!(
        other.iter().any(|line| line.contains("101 lines of output were not forwarded")),
        "{log}"
    );
}

/// A user of this host that is neither root nor ours, and what `id` says about it: uid, gid, groups.
fn other_user() -> (ReleaseUser, String) {
    let own = rustix::process::geteuid().as_raw().to_string();
    let id_of = |option: &str, name: &str| {
        let output = std::process::Command::new("id").args([option, name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let name = if id_of("-u", "nobody") == own { "daemon" } else { "nobody" };
    let id = |option: &str| id_of(option, name);
    let (uid, gid) = (id("-u"), id("-g"));
    let user = ReleaseUser {
        name: name.to_owned(),
        uid: uid.parse().unwrap(),
        gid: gid.parse().unwrap(),
        home: "/nonexistent".into(),
    };
    (user, format!("{uid} {gid} {}", id("-G")))
}

#[tokio::test]
async fn release_of_another_user_has_its_groups_and_no_capability() {
    let home = temp_dir();
    let script = "echo \"$(id -u) $(id -g) $(id -G)\"; echo \"$HOME $USER $LOGNAME $B $LD_X-\"; \
                  grep ^Cap /proc/self/status; ls /root; echo done >&2";
    let mut spec = spec(&home, 3, script);
    let (user, ids) = other_user();
    let (uid, name) = (user.uid, user.name.clone());
    spec.command.user = Some(user);
    // Not before the user is switched, and then unchanged.
    spec.command.env.insert("LD_X".into(), "/a b".into());
    if !rustix::process::geteuid().is_root() {
        let error = Process::start(&spec).unwrap_err();
        let lacks = format!("may not run releases as {name}: it lacks CAP_SETUID");
        assert!(error.contains(&lacks), "{error}");
        return;
    }
    let mut process = Process::start(&spec).unwrap();
    assert_eq!(process.wait_exit().await, "exit code 0");
    let seen = wait_for(&output(&spec), "done\n").await;
    let lines: Vec<_> = seen.lines().skip(1).collect();
    assert_eq!(lines[..2], [ids, format!("/nonexistent {name} {name} deploy /a b-")], "{seen}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let line = lines.iter().find(|line| line.starts_with(set)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    assert!(seen.contains("Permission denied"), "{seen}");
    process.stop().await.unwrap();

    // It is found, and stopped with all that it started, also by a later daemon.
    spec.command.argv[2] = "sleep 1000 & echo up; wait".into();
    let process = Process::start(&spec).unwrap();
    wait_for(&output(&spec), "up\n").await;
    let pid = process.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    let found = find_orphans(home.path(), "files");
    assert_eq!(found.iter().map(|it| it.pid).collect::<Vec<_>>(), [pid]);
    drop(process);
    let adopted = Process::adopt(&spec).unwrap();
    adopted.stop().await.unwrap();
    assert!(find_orphans(home.path(), "files").is_empty());
}
