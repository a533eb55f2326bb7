use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rollbackd::artifact::Podman;
use tempfile::TempDir;

/// A podman with a store of its own, and its API.
pub(super) struct PodmanStore {
    dir: TempDir,
    service: Child,
}

impl PodmanStore {
    pub(super) async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let url = format!("unix://{}", home.path().join("podman.sock").display());
        let mut command = command(&home);
        command.args(["system", "service", "--time", "0", &url]).stderr(Stdio::null());
        let service = command.spawn().unwrap();
        let store = Self { dir: home, service };
        for _ in 0..300 {
            if std::os::unix::net::UnixStream::connect(store.socket()).is_ok() {
                return store;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("podman does not listen");
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    pub(super) fn podman(&self) -> Podman {
        Podman::new(&self.socket()).unwrap()
    }

    /// Makes an image of one file. Returns its digest.
    pub(super) fn import(&self, tag: &str, content: &str) -> String {
        let folder = self.dir.path().join("content");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file"), content).unwrap();
        let archive = self.dir.path().join("content.tar");
        let packed =
            Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg(".").status();
        assert!(packed.unwrap().success());
        self.run(&["import", archive.to_str().unwrap(), tag]);
        self.run(&["image", "inspect", "--format", "{{.Digest}}", tag])
    }

    /// Builds an image by a Containerfile, beside the content of the last import.
    pub(super) fn build(&self, tag: &str, containerfile: &str) {
        let folder = self.dir.path().join("content");
        let file = self.dir.path().join("Containerfile");
        fs::write(&file, containerfile).unwrap();
        let (file, folder) = (file.to_str().unwrap(), folder.to_str().unwrap());
        self.run(&["build", "--network=none", "--pull=never", "-q", "-t", tag, "-f", file, folder]);
    }

    /// What a podman command prints.
    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let done = command(&self.dir).args(arguments).output().unwrap();
        assert!(done.status.success(), "podman {arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Ends the API.
    pub(super) fn stop(&mut self) {
        _ = self.service.kill();
        _ = self.service.wait();
    }
}

impl Drop for PodmanStore {
    fn drop(&mut self) {
        self.stop();
    }
}

/// podman, away from the machine's own images and containers.
fn command(home: &TempDir) -> Command {
    let mut command = Command::new("podman");
    for (option, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
        command.arg(option).arg(home.path().join(folder));
    }
    command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]);
    command
}
