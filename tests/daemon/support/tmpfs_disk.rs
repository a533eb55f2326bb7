use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A small file system of its own; it is unmounted at the end.
pub(crate) struct TmpfsDisk {
    path: PathBuf,
    kib: usize,
}

impl TmpfsDisk {
    pub(crate) fn mount(at: &Path, kib: usize) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=700"), "tmpfs"]).arg(at);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let good = mounted.is_ok_and(|it| it.success());
        assert!(good, "mount of a tmpfs failed; run the tests as root");
        Self { path: at.to_owned(), kib }
    }

    fn filler(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Fills the disk to the last byte.
    pub(crate) fn fill_up(&self) {
        let full = fs::write(self.filler(), vec![0; (self.kib + 1) * 1024]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    pub(crate) fn free_space(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for TmpfsDisk {
    fn drop(&mut self) {
        let _: std::io::Result<_> = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
