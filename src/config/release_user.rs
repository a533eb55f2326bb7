//! The user that the releases of a command run as.

use std::path::PathBuf;

use nix::unistd::User;

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::value::Raw;

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseUser {
    /// Its name.
    pub name: String,
    /// Its uid; never 0.
    pub uid: u32,
    /// The gid of its first group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// Looks the user up in the host's database of users.
pub(super) fn check(raw: &Raw<String>, problems: &mut Problems) -> Option<ReleaseUser> {
    let given = raw.as_ref()?;
    let name = given.get_ref();
    let shown = shorten(name);
    let (what, help) = match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => (
            format!("`user` is \"{shown}\", which is root"),
            "write a user without rights of its own; without `user` releases run as the daemon does",
        ),
        Ok(Some(User { name, uid, gid, dir, .. })) => {
            let (uid, gid) = (uid.as_raw(), gid.as_raw());
            return Some(ReleaseUser { name, uid, gid, home: dir });
        }
        Ok(None) => (
            format!("`user` is \"{shown}\", and this host has no such user"),
            "write the name of a user, as `getent passwd` lists them; `useradd --system NAME` adds one",
        ),
        Err(error) => (
            format!("`user` is \"{shown}\", which cannot be looked up: {error}"),
            "see whether `getent passwd NAME` works",
        ),
    };
    problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
    None
}
