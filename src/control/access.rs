//! Who may read and who may act over the control socket. The kernel identifies the client.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::control::protocol::Request;
use crate::model::Actor;

/// The group whose members may connect and read. The socket belongs to it if the daemon runs as
/// root or in that group; else to the daemon's own group.
pub const READERS_GROUP: &str = "rollbackd";
/// The group whose members may also act.
pub const ADMINS_GROUP: &str = "rollbackd-admin";

impl Request {
    /// Whether the request only reads.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::Timeline { .. })
    }
}

/// Checks that a user may act: root, the daemon's own user, or a member of [`ADMINS_GROUP`]. Queries
/// the user database of the system, which can block.
///
/// # Errors
/// Why not, and what to do about it.
pub fn authorize(actor: &Actor) -> Result<(), String> {
    let uid = Uid::from_raw(actor.uid);
    if uid.is_root() || uid == nix::unistd::geteuid() {
        return Ok(());
    }
    let user = User::from_uid(uid).ok().flatten();
    let group = Group::from_name(ADMINS_GROUP).ok().flatten();
    let is_member = |user: &User, admins: Gid| {
        let name = std::ffi::CString::new(user.name.as_str()).ok()?;
        let groups = getgrouplist(&name, user.gid).ok()?;
        groups.contains(&admins).then_some(())
    };
    let member = user.as_ref().zip(group.as_ref());
    if member.and_then(|(user, group)| is_member(user, group.gid)).is_some() {
        return Ok(());
    }
    let name = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
    let missing = if group.is_none() { " (the group does not exist yet)" } else { "" };
    Err(format!(
        "{name} may read but not act: acting needs root or the group {ADMINS_GROUP}{missing}; \
         add the user with `usermod -aG {READERS_GROUP},{ADMINS_GROUP} {name}`"
    ))
}

/// The id of [`READERS_GROUP`], if it exists.
pub(super) fn readers_gid() -> Option<u32> {
    Group::from_name(READERS_GROUP).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_own_user_may_act_and_others_may_not() {
        let actor = |uid| Actor { uid, pid: 1 };
        assert_eq!(authorize(&actor(0)), Ok(()));
        assert_eq!(authorize(&actor(nix::unistd::geteuid().as_raw())), Ok(()));
        let why = authorize(&actor(3_999_999_999)).unwrap_err();
        assert!(why.contains("uid 3999999999") && why.contains(ADMINS_GROUP), "{why}");
    }
}
