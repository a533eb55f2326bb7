//! Whether a directory can be used.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

use crate::act;
use crate::config::ReleaseUser;
use crate::preflight::finding::Failure;

/// What systemd creates for rollbackd.service (StateDirectory=, RuntimeDirectory=), whose user cannot.
const OF_THE_UNIT: [&str; 2] = ["/var/lib/rollbackd", "/run/rollbackd"];

/// A directory that exists can be written, and not by others; another one can be created in its
/// nearest parent.
pub(super) fn check(what: &str, path: &Path) -> Result<String, Failure> {
    let existing = path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
    let shown = path.display();
    if !existing.is_dir() {
        let message = format!("{what} {shown}: {} is not a directory", existing.display());
        return Err(Failure::new(message, "move it away, or name another path"));
    }
    if existing == path {
        refuse_open_to_all(what, path)?;
    } else if OF_THE_UNIT.iter().any(|it| path == Path::new(it)) {
        return Ok(format!("{what} {shown} does not exist yet; rollbackd.service creates it"));
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if existing == path => Ok(format!("{what} {shown} can be written")),
        Ok(()) => Ok(format!("{what} {shown} can be created")),
        Err(error) => {
            let message = format!("{what} {shown}: this user cannot write: {error}");
            let help = "check as the user of the daemon, such as with sudo -u rollbackd";
            Err(Failure::new(message, help))
        }
    }
}

/// A release, which may run as another user than the daemon, can create its socket in a directory.
pub(super) async fn check_for_socket(
    what: &str,
    path: &Path,
    user: Option<&ReleaseUser>,
) -> Result<String, Failure> {
    let shown = path.display();
    if !path.is_dir() {
        let message = format!("{what}: {shown} is not a directory; the socket would be in it");
        return Err(Failure::new(message, "create it, such as with systemd-tmpfiles"));
    }
    let (refused, help) = match user {
        Some(user) => {
            let help = format!("make it the user's: chown {} {shown}", user.name);
            (act::ensure_may_create_in(user, path).await.err(), help)
        }
        None => {
            let found = access(path, Access::WRITE_OK | Access::EXEC_OK);
            let refused = found.err().map(|it| format!("this user cannot write {shown}: {it}"));
            (refused, "check as the user of the daemon, such as with sudo -u rollbackd".to_owned())
        }
    };
    match refused {
        Some(why) => Err(Failure::new(format!("{what}: {why}"), help)),
        None => Ok(format!("{what}: its socket can be created in {shown}")),
    }
}

fn refuse_open_to_all(what: &str, path: &Path) -> Result<(), Failure> {
    let mode = path.metadata().map_or(0, |it| it.permissions().mode() & 0o7777);
    if mode & 0o002 == 0 {
        return Ok(());
    }
    let shown = path.display();
    let message = format!("{what} {shown}: all users may write into it (mode {mode:o})");
    // A sticky one, such as /tmp, is meant for all.
    let help = match mode & 0o1000 {
        0 => format!("chmod o-w {shown}"),
        _ => "use a directory of its own, such as one below it".to_owned(),
    };
    Err(Failure::new(message, help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_all_may_write_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("state");
        assert!(check("it", &dir).is_ok_and(|it| it.contains("can be created")));
        std::fs::create_dir(&dir).unwrap();
        assert!(check("it", &dir).is_ok_and(|it| it.contains("can be written")));
        let all_may_write = |mode| {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            check("it", &dir).unwrap_err()
        };
        let plain = all_may_write(0o777);
        assert!(plain.message.contains("all users") && plain.help.starts_with("chmod"));
        assert!(all_may_write(0o1777).help.contains("of its own"));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(check("it", &folder.path().join("file/state")).is_err());
    }

    #[tokio::test]
    async fn a_socket_needs_a_directory_that_its_release_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, missing) = (folder.path(), folder.path().join("missing"));
        let found = check_for_socket("slot blue", &missing, None).await;
        assert!(found.is_err_and(|it| it.message.contains("is not a directory")));
        assert!(check_for_socket("slot blue", dir, None).await.is_ok());
        if !rustix::process::geteuid().is_root() {
            return println!("only root can become another user");
        }
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
        let user = ReleaseUser { name: nobody.name, uid, gid, home: nobody.dir };
        let refused = check_for_socket("slot blue", dir, Some(&user)).await.unwrap_err();
        assert!(refused.message.contains("nobody may not create files in"), "{refused:?}");
        assert!(refused.help.starts_with("make it the user's: chown nobody"), "{refused:?}");
        std::os::unix::fs::chown(dir, Some(uid), None).unwrap();
        assert!(check_for_socket("slot blue", dir, Some(&user)).await.is_ok());
    }
}
