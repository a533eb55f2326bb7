//! Whether a directory can be used.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

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
}
