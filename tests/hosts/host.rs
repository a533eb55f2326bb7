use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::ports::free_port;
use crate::time::{pause, soon, until};

const BOOT_MAX: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_rollbackd");
/// What the package does for its users.
const USERS: &str = "u rollbackd - - /var/lib/rollbackd\ng rollbackd-admin -\n";

/// A host that systemd booted, with the daemon installed. It shares this machine's network.
pub(crate) struct Host {
    folder: TempDir,
    boot: Child,
    init: u32,
    pub(crate) listen: u16,
}

/// How a command on a host ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Host {
    /// Boots a host with the lines of `drop_in` added to the unit, and starts the daemon.
    pub(crate) fn boot(drop_in: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(home()).unwrap();
        let root = folder.path().join("root");
        for name in ["root", "upper", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (base, at) = (home().join("base"), folder.path().display());
        assert!(base.join("bin").exists(), "no system to boot; run tests/run, which makes it");
        let base = base.display();
        let layers = format!("lowerdir={base},upperdir={at}/upper,workdir={at}/work");
        let mount = ["-t", "overlay", "overlay", "-o", &layers];
        let mounted = Command::new("mount").args(mount).arg(&root).status().unwrap();
        assert!(mounted.success(), "mounting takes root");
        let ports = [free_port(), free_port(), free_port()];
        install(&root, ports, drop_in);
        let mut boot = Command::new("systemd-nspawn");
        boot.arg("--quiet").arg(format!("--directory={}", root.display()));
        boot.args(["--boot", "--register=no", "--keep-unit"]);
        boot.arg(format!("--machine=rollbackd-{}-{}", std::process::id(), ports[0]));
        boot.arg(format!("--uuid={:032x}", 0x6bfb_a588_0000_0000 + u64::from(ports[0])));
        let log = fs::File::create(folder.path().join("console")).unwrap();
        boot.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let boot = boot.spawn().expect("systemd-nspawn is not installed; run tests/run");
        let children = format!("/proc/{0}/task/{0}/children", boot.id());
        let init = until(BOOT_MAX, "the first process of the host", || {
            // Others come before it, and end.
            let text = fs::read_to_string(&children).unwrap();
            let pid = text.split_whitespace().next()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "systemd").then(|| pid.parse().unwrap())
        });
        let host = Self { folder, boot, init, listen: ports[0] };
        soon("the host runs", || host.run(&["systemctl", "is-system-running"]).out == "running");
        host.run(&["systemctl", "start", "rollbackd"]).good();
        host
    }

    /// Runs a command there, to its end.
    pub(crate) fn run(&self, command: &[&str]) -> Done {
        let init = self.init.to_string();
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &init, "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(command);
        let output = enter.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Done { code: output.status.code().unwrap_or(-1), out, err }
    }

    /// Runs it as another user.
    pub(crate) fn run_as(&self, user: &str, command: &[&str]) -> Done {
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        self.run(&[&["setpriv", &uid, &gid, "--init-groups", "--"], command].concat())
    }

    /// One property of the daemon's unit.
    pub(crate) fn property(&self, name: &str) -> String {
        let shown = self.run(&["systemctl", "show", "rollbackd", "--value", "--property", name]);
        shown.good().out
    }

    pub(crate) fn status(&self) -> Value {
        let said = self.run(&["rollbackd", "status", "weather", "--json"]);
        serde_json::from_str(&said.out).unwrap_or(Value::Null)
    }

    pub(crate) fn deploy(&self, version: &str, more: &[&str]) -> Done {
        self.run(&[&["rollbackd", "deploy", "weather", version], more].concat())
    }

    /// What is in the journal.
    pub(crate) fn journal(&self, matches: &[&str]) -> Vec<Value> {
        let command = [&["journalctl", "-o", "json", "--no-pager"], matches].concat();
        let lines = self.run(&command).good().out;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Sends a signal to the daemon, and to nothing that it started.
    pub(crate) fn kill_daemon(&self, signal: &str) {
        let signal = format!("--signal={signal}");
        self.run(&["systemctl", "kill", "--kill-who=main", &signal, "rollbackd"]).good();
    }

    /// Waits until the unit runs under another process than this one.
    pub(crate) fn started_again(&self, limit: Duration, before: &str) {
        until(limit, "the daemon is started again", || {
            let again = self.property("ActiveState") == "active"
                && self.property("SubState") == "running"
                && self.property("MainPID") != before;
            again.then_some(())
        });
    }
}

impl Done {
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        self.ends(0)
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.run(&["journalctl", "-u", "rollbackd", "-o", "short-precise"]);
            eprintln!("the daemon's log:\n{}", log.out);
        }
        let init = self.init.to_string();
        let _: std::io::Result<_> = Command::new("kill").args(["-KILL", &init]).status();
        pause(Duration::from_millis(100));
        let _: std::io::Result<_> = self.boot.kill();
        let _: std::io::Result<_> = self.boot.wait();
        let root = self.folder.path().join("root");
        let _: std::io::Result<_> = Command::new("umount").arg("--lazy").arg(root).status();
    }
}

/// Where systems lie that can be booted.
fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hosts")
}

fn install(root: &Path, [listen, blue, green]: [u16; 3], drop_in: &str) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let put = |from: PathBuf, to: &str| {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    put(PROGRAM.into(), "usr/bin/rollbackd");
    let unit = "lib/systemd/system/rollbackd.service";
    put(project.join("systemd/rollbackd.service"), unit);
    put(project.join("systemd/rollbackd.socket"), "lib/systemd/system/rollbackd.socket");
    put(project.join("systemd/rollbackd.catalog"), "usr/lib/systemd/catalog/rollbackd.catalog");
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("usr/lib/sysusers.d/rollbackd.conf", USERS);
    write("etc/systemd/system/rollbackd.service.d/test.conf", drop_in);
    let config = format!(
        "[service.weather]\nlisten = \"127.0.0.1:{listen}\"\nruntime = \"command\"\n\
         command = [\"/usr/bin/rollbackd\", \"demo-server\"]\n\
         slots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}\n\
         deadline = \"10s\"\ndrain_timeout = \"5s\"\nburst = \"1s\"\n"
    );
    write("etc/rollbackd/config.toml", &config);
}
