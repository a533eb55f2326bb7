//! Who may change what the releases of this daemon run.

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::lstat;
use rustix::process::{getegid, geteuid};

/// The users and groups whose right to write is no danger.
#[derive(Debug)]
pub(super) struct TrustedOwners {
    users: [u32; 3],
    groups: [u32; 3],
}

impl TrustedOwners {
    /// Those of this process. The owner of the root of the file system may change everything, also where
    /// that is not the uid 0, as in a user namespace.
    pub(super) fn of_this_process() -> Self {
        let (user, group) = lstat("/").map_or((0, 0), |stat| (stat.st_uid, stat.st_gid));
        let daemon = geteuid().as_raw();
        Self { users: [0, daemon, user], groups: [0, own_group(daemon).unwrap_or(0), group] }
    }

    pub(super) fn has_user(&self, uid: u32) -> bool {
        self.users.contains(&uid)
    }

    pub(super) fn has_group(&self, gid: u32) -> bool {
        self.groups.contains(&gid)
    }
}

/// The group that a user has for itself: with its name, and without another member. Another group, such
/// as `users`, may be the first of many.
fn own_group(uid: u32) -> Option<u32> {
    let gid = Gid::from_raw(getegid().as_raw());
    let user = User::from_uid(Uid::from_raw(uid)).ok()??;
    let group = Group::from_gid(gid).ok()??;
    let is_own = group.name == user.name && group.mem.iter().all(|it| *it == user.name);
    is_own.then_some(gid.as_raw())
}
