use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::run;

/// A small disk, which is a file, mounted on a folder.
pub(crate) struct LoopDisk {
    file: PathBuf,
    mount_point: PathBuf,
    snapshots: u32,
}

impl LoopDisk {
    pub(crate) fn new(folder: &Path, at: PathBuf, mib: u64) -> Self {
        let disk = Self { file: folder.join("disk-0"), mount_point: at, snapshots: 0 };
        fs::File::create(&disk.file).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", disk.file.to_str().unwrap()]);
        fs::create_dir_all(&disk.mount_point).unwrap();
        disk.mount();
        // The daemon's folder is empty at first.
        fs::remove_dir(disk.mount_point.join("lost+found")).unwrap();
        disk
    }

    /// Goes back to what had reached the disk in this moment. What was written and not synced is lost,
    /// as it is when the power is.
    pub(crate) fn revert_to_synced(&mut self) {
        let before = self.file.clone();
        self.snapshots += 1;
        self.file = before.with_file_name(format!("disk-{}", self.snapshots));
        let copy = [before.to_str().unwrap(), self.file.to_str().unwrap()];
        run("cp", &["--sparse=always", copy[0], copy[1]]);
        run("umount", &["--lazy", self.mount_point.to_str().unwrap()]);
        fs::remove_file(before).unwrap();
        self.mount();
    }

    fn mount(&self) {
        run(
            "mount",
            &["-o", "loop", self.file.to_str().unwrap(), self.mount_point.to_str().unwrap()],
        );
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        let _: std::io::Result<_> =
            Command::new("umount").arg("--lazy").arg(&self.mount_point).status();
    }
}
