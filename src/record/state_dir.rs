//! The state directory: its lock, which admits one daemon, its format, and the key of session ids.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::files::{create_private_dir, open_private, open_to_read, set_aside, write_atomically};
use crate::record::error::StateError;

/// The format of the directory. It increases when an older daemon would misread what a newer one
/// wrote.
const FORMAT_VERSION: u32 = 1;

const KEY_TOO_SHORT: &str = "it is shorter than 16 bytes; restore it from a copy, or remove it: the \
                             daemon then makes a new one, and open sessions end";

/// The state directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // A close alone is not enough: a child that is forked right now still holds a copy.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// Opens the directory, creates it if it does not exist, and locks it.
    ///
    /// # Errors
    /// It cannot be created or written, another daemon holds it, or a newer one wrote it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let fail = |action: &str| {
            let action = format!("failed to {action} the state directory {}", dir.display());
            move |source| StateError::new(action, source)
        };
        create_private_dir(dir).map_err(fail("create"))?;
        check_owner(dir).map_err(fail("use"))?;
        let lock = open_private(&dir.join("lock")).map_err(fail("write into"))?;
        lock.try_lock().map_err(|error| {
            let source = match error {
                fs::TryLockError::Error(source) => source,
                fs::TryLockError::WouldBlock => io::Error::other("another rollbackd runs on it"),
            };
            fail("lock")(source)
        })?;
        check_format(dir).map_err(fail("use"))?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// The directory of one service; creates it if it does not exist. What else has its name is set
    /// aside. The second part says what was in the way, or why there is no directory.
    pub fn service_dir(&self, name: &str) -> (PathBuf, Vec<String>) {
        let dir = self.dir.join(name);
        let mut damage = Vec::new();
        let is_other = fs::symlink_metadata(&dir).is_ok_and(|it| !it.is_dir());
        if is_other {
            let moved = set_aside(&dir)
                .map_or_else(|error| error.to_string(), |to| format!("it is {} now", to.display()));
            damage.push(format!("{} is not a directory: {moved}", dir.display()));
        }
        if let Err(error) = create_private_dir(&dir) {
            damage.push(format!("failed to create the directory {}: {error}", dir.display()));
        }
        (dir, damage)
    }

    /// The secret key of this host, which the first start makes.
    ///
    /// # Errors
    /// It cannot be read or written, or the system gives no random numbers.
    pub fn host_key(&self) -> Result<[u8; 16], StateError> {
        let path = self.dir.join("key");
        read_or_create_key(&path).map_err(|source| {
            StateError::new(format!("failed to read or create the key {}", path.display()), source)
        })
    }
}

/// Rejects a directory that another user owns or may write into: who can write the state, or the key of
/// session ids, is in command. A link counts if root or the daemon's user made it, as systemd does.
fn check_owner(dir: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let (link, target) = (fs::symlink_metadata(dir)?, fs::metadata(dir)?);
    let help = "use a directory that only the daemon's user can write";
    if link.is_symlink() && link.uid() != own && link.uid() != 0 {
        let what = format!("uid {} made this link; {help}", link.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if target.uid() != own {
        let what = format!("it belongs to uid {}, not to uid {own}; {help}", target.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    if target.mode() & 0o022 != 0 {
        let mode = target.mode() & 0o7777;
        let what = format!("others may write into it (mode {mode:o}); run `chmod go-w` on it");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}

fn read_or_create_key(path: &Path) -> io::Result<[u8; 16]> {
    let mut key = [0; 16];
    match open_to_read(path) {
        Ok(mut file) => {
            file.read_exact(&mut key).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other(KEY_TOO_SHORT),
                _ => error,
            })?;
            return Ok(key);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    // Sessions whose ids depend on a key that is lost would end.
    write_atomically(path, &key)?;
    Ok(key)
}

/// Rejects a directory of a newer format; writes the format of a directory that has none.
fn check_format(dir: &Path) -> io::Result<()> {
    let path = dir.join("format");
    let recorded = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match recorded.as_ref().map(|text| text.trim().parse::<u32>()) {
        Some(Ok(format)) if format <= FORMAT_VERSION => Ok(()),
        Some(Ok(format)) => Err(io::Error::other(format!(
            "a newer rollbackd wrote it: {} has format {format}, this one knows {FORMAT_VERSION}; \
             install the newer version again, or set another state_dir",
            path.display()
        ))),
        Some(Err(_)) => Err(io::Error::other(format!(
            "{} is not a number; write {FORMAT_VERSION} into it unless a newer rollbackd ran here",
            path.display()
        ))),
        // A new directory, or one of a daemon that did not write this file yet.
        None => write_atomically(&path, format!("{FORMAT_VERSION}\n").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_may_write_is_rejected() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        drop(StateDir::open(&state).unwrap());
        for (mode, is_safe) in [(0o777, false), (0o770, false), (0o755, true), (0o700, true)] {
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(StateDir::open(&state).is_ok(), is_safe, "{mode:o}");
        }
        symlink(&state, dir.path().join("link")).unwrap();
        drop(StateDir::open(&dir.path().join("link")).unwrap());
        fs::remove_file(state.join("key")).unwrap_or_default();
        symlink("/dev/zero", state.join("key")).unwrap();
        StateDir::open(&state).unwrap().host_key().unwrap_err();
    }

    #[test]
    fn a_directory_of_a_newer_format_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        drop(StateDir::open(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "1\n");
        drop(StateDir::open(dir.path()).unwrap());
        for (text, words) in [
            ("2\n", "a newer rollbackd wrote it"),
            ("", "is not a number"),
            ("x", "is not a number"),
        ] {
            fs::write(dir.path().join("format"), text).unwrap();
            let error = StateDir::open(dir.path()).unwrap_err().with_cause();
            assert!(error.contains(words), "{error}");
        }
    }
}
