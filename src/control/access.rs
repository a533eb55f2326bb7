//! Who may read and who may act over the control socket. The kernel identifies the client.

use std::fs::File;
use std::io::Read as _;

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
        match self {
            Self::Status { .. } | Self::Explain { .. } | Self::Timeline { .. } => true,
            Self::Incident { request } => request.is_read_only(),
            _ => false,
        }
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

/// The variable in the environment of every process of a release.
const RELEASE_VARIABLE: &str = "ROLLBACKD_OWNER=";
/// Bytes of an environment that are read.
const ENVIRON_MAX: u64 = 2 * 1024 * 1024;
/// Ancestors of a client that are checked.
const ANCESTORS_MAX: usize = 32;

/// Checks that a client is no process of a release: a release must not command the daemon that judges it,
/// although it may run as the same user. It counts as one where its environment, or that of an ancestor,
/// of its group's or of its session's first process says so. Reads /proc, which can block.
///
/// # Errors
/// It is one, or it ran as the daemon's user and has ended.
pub fn ensure_not_a_release(actor: &Actor) -> Result<(), String> {
    // A client in another PID namespace has no id here.
    let Some(first) = u32::try_from(actor.pid).ok().filter(|pid| *pid > 0) else { return Ok(()) };
    let mut next = vec![first];
    let mut seen = Vec::new();
    while let Some(pid) = next.pop().filter(|_| seen.len() < ANCESTORS_MAX) {
        if pid <= 1 || seen.contains(&pid) || pid == std::process::id() {
            continue;
        }
        seen.push(pid);
        if has_release_variable(pid) {
            return Err(format!(
                "process {first} belongs to a release, and releases may read but not act"
            ));
        }
        match process_relations(pid) {
            Some(relations) => next.extend(relations),
            // Releases run as the daemon's user. Under ProtectProc=invisible the processes of other users
            // cannot be seen, and those are no releases.
            None if pid == first && actor.uid == nix::unistd::geteuid().as_raw() => {
                return Err(format!("process {first}, which sent the command, has ended"));
            }
            None => (),
        }
    }
    Ok(())
}

fn has_release_variable(pid: u32) -> bool {
    let mut environment = Vec::new();
    let Ok(file) = File::open(format!("/proc/{pid}/environ")) else { return false };
    if file.take(ENVIRON_MAX).read_to_end(&mut environment).is_err() {
        return false;
    }
    environment.split(|byte| *byte == 0).any(|it| it.starts_with(RELEASE_VARIABLE.as_bytes()))
}

/// The parent, the process group and the session of a process; `None` if it has ended.
fn process_relations(pid: u32) -> Option<Vec<u32>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain spaces and parentheses: state, parent, group, session.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().skip(1).take(3).filter_map(|it| it.parse().ok()).collect())
}

/// Adds the name of the user. Queries the user database of the system, which can block.
pub fn with_user_name(actor: Actor) -> Actor {
    let user = User::from_uid(Uid::from_raw(actor.uid)).ok().flatten().map(|user| user.name);
    // The name goes into the timeline and to terminals.
    Actor { user: user.filter(|name| !name.contains(char::is_control)), ..actor }
}

/// The id of [`READERS_GROUP`], if it exists.
pub(super) fn readers_gid() -> Option<u32> {
    Group::from_name(READERS_GROUP).ok().flatten().map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_cannot_be_seen_is_refused_only_as_the_user_of_releases() {
        let own = nix::unistd::geteuid().as_raw();
        let invisible = |uid| Actor { uid, pid: i32::MAX, ..Actor::default() };
        assert!(ensure_not_a_release(&invisible(own)).is_err());
        assert_eq!(ensure_not_a_release(&invisible(own + 1)), Ok(()));
    }

    #[test]
    fn a_process_of_a_release_is_recognised_and_others_are_not() {
        use std::process::{Command, Stdio};
        let spawn = |script: &str, marked: bool| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            if marked {
                command.env("ROLLBACKD_OWNER", "/var/lib/rollbackd");
            }
            command.spawn().unwrap()
        };
        let first_line = |child: &mut std::process::Child| {
            let mut byte = [0];
            let mut line = String::new();
            let out = child.stdout.as_mut().unwrap();
            while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                line.push(char::from(byte[0]));
            }
            line.parse::<i32>().unwrap()
        };
        // The process that says its pid cleared its own environment; its parent is marked.
        for (script, marked, expected) in [
            ("echo $$; read x", false, true),
            ("echo $$; read x", true, false),
            ("env -i sh -c 'echo $$; read x'; true", true, false),
        ] {
            let mut child = spawn(script, marked);
            let pid = first_line(&mut child);
            let checked = ensure_not_a_release(&Actor { uid: 0, pid, user: None });
            assert_eq!(checked.is_ok(), expected, "{script} {marked}: {checked:?}");
            drop(child.stdin.take());
            child.wait().unwrap();
            let ended = ensure_not_a_release(&Actor { uid: 0, pid, user: None });
            assert!(ended.unwrap_err().contains("has ended"));
        }
    }

    #[test]
    fn root_and_the_own_user_may_act_and_others_may_not() {
        let actor = |uid| Actor { uid, pid: 1, user: None };
        assert_eq!(authorize(&actor(0)), Ok(()));
        assert_eq!(authorize(&actor(nix::unistd::geteuid().as_raw())), Ok(()));
        let why = authorize(&actor(3_999_999_999)).unwrap_err();
        assert!(why.contains("uid 3999999999") && why.contains(ADMINS_GROUP), "{why}");
    }
}
