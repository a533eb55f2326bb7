use std::fs;
use std::path::{Path, PathBuf};

use crate::wait::sleep;

/// A control group of this machine for one host: without it hosts share the groups of their units, and
/// stop each other's.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut groups = fields.filter(|it| it[2] == "cgroup2").map(|it| it[1].to_owned());
        let group = Path::new(&groups.next().expect("no cgroup2 is mounted")).join(name);
        fs::create_dir(&group).unwrap();
        Self(group)
    }

    /// The file that adds a process.
    pub(crate) fn procs_file(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Removes the groups that a host left in it.
    pub(crate) fn remove_children(&self) {
        // A group that a process just left is busy for another moment.
        for _ in 0..50 {
            let below = child_groups(&self.0);
            if below.iter().filter(|it| !remove_tree(it)).count() == 0 {
                return;
            }
            sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove_children();
        remove_tree(&self.0);
    }
}

fn child_groups(group: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(group).into_iter().flatten().flatten();
    files.map(|file| file.path()).filter(|path| path.is_dir()).collect()
}

/// Removes a group and those below it; whether it is gone.
fn remove_tree(group: &Path) -> bool {
    child_groups(group).iter().for_each(|it| _ = remove_tree(it));
    fs::remove_dir(group).is_ok()
}
