//! The state folder: one daemon at a time, and a secret that session ids hang on.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The form of what lies in the folder. Another one is counted up when an older daemon would misread
/// what a newer one wrote.
const FORMAT_VERSION: u32 = 1;

/// What to do about a secret that somebody, or a disk, cut short.
const KEY_TOO_SHORT: &str = "it is shorter than 16 bytes; restore it from a copy, or remove it: a new one \
                       is made, and sessions that are open end";

/// The state folder, locked for this process until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Not only closed: a program that is started in this moment still holds it for a while.
        let _ = self.lock.unlock();
    }
}

/// Why the state folder can not be used: what was tried, and what came of it.
#[derive(Debug)]
pub struct StateError {
    action: String,
    source: io::Error,
}

impl StateDir {
    /// Opens the folder, making it if need be, and locks it.
    ///
    /// # Errors
    /// When it can not be made or written, or another daemon holds it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let at = |what: &str| {
            let what = format!("failed to {what} {}", dir.display());
            move |source| StateError { action: what, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(at("make the state folder"))?;
        let lock = open_private(dir.join("lock")).map_err(at("write into the state folder"))?;
        lock.try_lock().map_err(|error| {
            let source = match error {
                fs::TryLockError::Error(source) => source,
                fs::TryLockError::WouldBlock => io::Error::other("another rollbackd runs on it"),
            };
            at("lock the state folder")(source)
        })?;
        check_format(dir).map_err(at("use the state folder"))?;
        Ok(Self { dir: dir.to_owned(), lock })
    }

    /// The folder of one service, made if need be.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn service_dir(&self, name: &str) -> Result<PathBuf, StateError> {
        let dir = self.dir.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|source| {
            let what = format!("failed to make the folder {}", dir.display());
            StateError { action: what, source }
        })?;
        Ok(dir)
    }

    /// The secret of this host, made at the first start.
    ///
    /// # Errors
    /// When it can not be read or written, or there are no random numbers.
    pub fn host_key(&self) -> Result<[u8; 16], StateError> {
        let path = self.dir.join("key");
        self.read_key(&path).map_err(|source| {
            let what = format!("failed to read or make the secret {}", path.display());
            StateError { action: what, source }
        })
    }

    fn read_key(&self, path: &Path) -> io::Result<[u8; 16]> {
        let mut key = [0; 16];
        match File::open(path) {
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
        // Whole or not at all: ids that hang on half a secret would be lost.
        let new = path.with_extension("new");
        let mut file = open_private(new.clone())?;
        file.set_len(0)?;
        file.write_all(&key)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(key)
    }
}

/// Sees to it that we know the form of what lies in a folder, and writes down that it is ours.
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
            "a newer rollbackd wrote it: {} says {format}, and this one knows {FORMAT_VERSION}; install the \
             newer version again, or name another state_dir",
            path.display()
        ))),
        Some(Err(_)) => Err(io::Error::other(format!(
            "{} is no number; write {FORMAT_VERSION} into it if nobody used a newer rollbackd here",
            path.display()
        ))),
        // Also what a daemon left that did not write this file yet.
        None => {
            let new = path.with_extension("new");
            let mut file = open_private(new.clone())?;
            file.set_len(0)?;
            file.write_all(format!("{FORMAT_VERSION}\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        }
    }
}

fn open_private(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl StateError {
    /// It and its cause, in one line.
    pub fn with_cause(&self) -> String {
        format!("{}: {}", self.action, self.source)
    }

    pub(super) fn new(action: String, source: io::Error) -> Self {
        Self { action, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_wrote_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        drop(StateDir::open(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "1\n");
        drop(StateDir::open(dir.path()).unwrap());
        for (text, words) in
            [("2\n", "a newer rollbackd wrote it"), ("", "is no number"), ("x", "is no number")]
        {
            fs::write(dir.path().join("format"), text).unwrap();
            let error = StateDir::open(dir.path()).unwrap_err().with_cause();
            assert!(error.contains(words), "{error}");
        }
    }
}
