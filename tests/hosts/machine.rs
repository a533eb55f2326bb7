use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::loop_disk::LoopDisk;
use crate::ports::free_port;
use crate::wait::{sleep, wait_for, wait_until};

const BOOT_MAX: Duration = Duration::from_secs(60);

/// A host that systemd booted from a small Debian, with the package installed as a user does it. It
/// shares this machine's network, and what it wrote is thrown away at the end.
pub(crate) struct Machine {
    folder: TempDir,
    nspawn: Option<Child>,
    init_pid: u32,
    id: u16,
    disk: Option<LoopDisk>,
    group: Cgroup,
}

/// How a command on a host ended.
#[derive(Debug)]
pub(crate) struct CommandOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    /// Boots a host and installs the package.
    pub(crate) fn boot() -> Self {
        Self::with_disk(None)
    }

    /// The same with a disk of `mib` MiB for the daemon's state.
    pub(crate) fn boot_with_disk(mib: u64) -> Self {
        Self::with_disk(Some(mib))
    }

    fn with_disk(mib: Option<u64>) -> Self {
        let package = package();
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(images_dir()).unwrap();
        for name in ["root", "upper", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (base, at) = (images_dir().join("base"), folder.path().display());
        assert!(base.join("bin").exists(), "no system to boot; run tests/run, which makes it");
        let layers = format!("lowerdir={},upperdir={at}/upper,workdir={at}/work", base.display());
        let root = folder.path().join("root");
        run("mount", &["-t", "overlay", "overlay", "-o", &layers, root.to_str().unwrap()]);
        let disk = mib.map(|mib| LoopDisk::new(folder.path(), root.join("var/lib/rollbackd"), mib));
        let id = free_port();
        let group = Cgroup::new(&format!("rollbackd-{}-{id}", std::process::id()));
        let mut machine = Self { folder, nspawn: None, init_pid: 0, id, disk, group };
        machine.power_on();
        let inside = machine.root().join("root/rollbackd.deb");
        fs::copy(package, inside).unwrap();
        machine.run(&["dpkg", "-i", "/root/rollbackd.deb"]).expect_success();
        machine
    }

    /// Boots it, also once more after [`Self::power_off`].
    pub(crate) fn power_on(&mut self) {
        let (id, process) = (self.id, std::process::id());
        let mut boot = Command::new("sh");
        let group = self.group.procs_file();
        boot.args(["-c", "echo $$ >\"$0\" && exec systemd-nspawn \"$@\""]).arg(group);
        boot.arg("--quiet").arg(format!("--directory={}", self.root().display()));
        boot.args(["--boot", "--register=no", "--keep-unit"]);
        boot.arg(format!("--machine=rollbackd-{process}-{id}"));
        boot.arg(format!("--uuid={:032x}", 0x6bfb_a588_0000_0000 + u64::from(id)));
        // cgroup v2, as in Debian, also where this machine has v1.
        boot.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let console = self.folder.path().join("console");
        let log = fs::File::create(&console).unwrap();
        boot.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let boot = boot.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", boot.id());
        let boot = self.nspawn.insert(boot);
        self.init_pid = wait_for(BOOT_MAX, "the first process of the host", || {
            let ended = boot.try_wait().unwrap();
            assert!(ended.is_none(), "systemd-nspawn: {}", fs::read_to_string(&console).unwrap());
            // Helper processes come before it, and exit.
            let text = fs::read_to_string(&children).unwrap();
            let pid = text.split_whitespace().next()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "systemd").then(|| pid.parse().unwrap())
        });
        // A unit that failed degrades it; some tests have some that do.
        wait_until("the host runs", || {
            let state = self.run(&["systemctl", "is-system-running"]).out;
            state == "running" || state == "degraded"
        });
    }

    /// Cuts the power: kills every process of the host.
    ///
    /// What was written and not synced is still in this machine's memory, and the next boot reads it
    /// there; except for a disk of its own, which loses it.
    pub(crate) fn power_off(&mut self) {
        let Some(mut boot) = self.nspawn.take() else { return };
        let init = self.init_pid.to_string();
        let _: std::io::Result<_> = Command::new("kill").args(["-KILL", &init]).status();
        if let Some(disk) = &mut self.disk {
            disk.revert_to_synced();
        }
        boot.wait().unwrap();
        self.group.remove_children();
    }

    /// The root folder of the host, as a path of this machine.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The root folder as the running host sees it, with its mounts.
    pub(crate) fn namespace_root(&self) -> PathBuf {
        Path::new("/proc").join(self.init_pid.to_string()).join("root")
    }

    /// Runs a command there, to its end.
    pub(crate) fn run(&self, command: &[&str]) -> CommandOutput {
        let init = self.init_pid.to_string();
        let mut enter = Command::new("nsenter");
        enter.args(["-t", &init, "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(command);
        let output = enter.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        CommandOutput { code: output.status.code().unwrap_or(-1), out, err }
    }

    /// Runs a line of shell there, which has to succeed.
    #[track_caller]
    pub(crate) fn shell(&self, line: &str) -> String {
        self.run(&["sh", "-c", line]).expect_success().out
    }

    /// Writes a file there, and the folders above it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl CommandOutput {
    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts that the output contains this.
    #[track_caller]
    pub(crate) fn expect_text(self, what: &str) -> Self {
        assert!(self.err.contains(what) || self.out.contains(what), "not {what:?} in {self:#?}");
        self
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
        let root = self.root();
        self.disk = None;
        // The kernel releases the mounts of a killed host after a moment.
        for _ in 0..20 {
            let unmounted = Command::new("umount").arg(&root).stderr(Stdio::null()).status();
            if unmounted.is_ok_and(|it| it.success()) {
                return;
            }
            sleep(Duration::from_millis(100));
        }
        let _: std::io::Result<_> = Command::new("umount").arg("--lazy").arg(&root).status();
    }
}

/// Runs a command on this machine, which has to succeed.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run tests/run"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {err} (as root?)");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The folder of bootable systems.
fn images_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hosts")
}

/// The package built from this source.
fn package() -> PathBuf {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| newest_package(Path::new(env!("CARGO_MANIFEST_DIR"))));
    found.clone().unwrap_or_else(|why| panic!("{why}; run packaging/build"))
}

fn newest_package(project: &Path) -> Result<PathBuf, String> {
    let version = concat!("rollbackd_", env!("CARGO_PKG_VERSION"), "_");
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        name.starts_with(version) && name.ends_with(".deb")
    };
    let files = fs::read_dir(project.join("target/package")).into_iter().flatten();
    let package = files.map(|file| file.unwrap().path()).find(is_ours);
    let package = package.ok_or("there is no package to install")?;
    let built = modified(&package);
    for part in ["src", "systemd", "packaging", "Cargo.lock"] {
        let (newest, path) = newest(&project.join(part));
        if built < newest {
            return Err(format!("{} changed after the package was built", path.display()));
        }
    }
    Ok(package)
}

/// The file in a folder that changed last, and when.
fn newest(path: &Path) -> (SystemTime, PathBuf) {
    let own = if path.is_dir() { SystemTime::UNIX_EPOCH } else { modified(path) };
    let below = fs::read_dir(path).into_iter().flatten().map(|it| newest(&it.unwrap().path()));
    below.fold((own, path.to_owned()), |last, next| if next.0 > last.0 { next } else { last })
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}
