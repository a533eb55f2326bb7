//! Secrets: where they are, and reading them. A secret never stands in the configuration itself.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::config::problem::{Problem, ProblemCode, Problems};

/// Largest secret, in bytes.
const BYTES_MAX: u64 = 16 * 1024;
/// The variable with the directory of the credentials of a unit.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that other users cannot read.
    File(PathBuf),
    /// A credential of the unit, by its name in `LoadCredential=`.
    Credential(String),
}

/// A secret. It prints as `[secret]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl SecretSource {
    /// Reads the secret, without a line end at its end. It is read for each use, so that a new one counts
    /// at once.
    ///
    /// # Errors
    /// It is missing, empty, too large, or other users can read it: where, and what to do.
    pub fn read(&self) -> Result<Secret, String> {
        let path = self.path()?;
        let shown = path.display();
        let file =
            File::open(&path).map_err(|error| format!("{shown}: {error}{}", self.advice()))?;
        let metadata = file.metadata().map_err(|error| format!("{shown}: {error}"))?;
        if !metadata.is_file() {
            return Err(format!("{shown} is not a file"));
        }
        if metadata.permissions().mode() & 0o007 != 0 {
            return Err(format!("{shown} can be read by other users; `chmod o-rwx {shown}`"));
        }
        let mut text = String::new();
        let read = file.take(BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| format!("{shown}: {error}"))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(format!("{shown} has more than {BYTES_MAX} bytes: it is no secret"));
        }
        let secret = text.trim_end_matches(['\n', '\r']);
        if secret.is_empty() || secret.contains(char::is_control) {
            return Err(format!("{shown} does not have the secret on its only line"));
        }
        Ok(Secret(secret.to_owned()))
    }

    fn path(&self) -> Result<PathBuf, String> {
        match self {
            Self::File(path) => Ok(path.clone()),
            Self::Credential(name) => match std::env::var_os(CREDENTIALS_DIRECTORY) {
                Some(dir) => Ok(PathBuf::from(dir).join(name)),
                None => Err(format!(
                    "the credential {name} is only there in the unit: `systemctl edit rollbackd`, \
                     LoadCredential={name}:FILE"
                )),
            },
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::File(_) => String::new(),
            Self::Credential(name) => {
                format!("; `systemctl edit rollbackd`: LoadCredential={name}:FILE")
            }
        }
    }
}

/// Checks the form of a source. Whether the secret is there is not a question of the text.
pub(super) fn check_secret(source: &SecretSource, at: Range<usize>, problems: &mut Problems) {
    let SecretSource::Credential(name) = source else { return };
    // The rules of systemd.exec(5): a valid file name.
    let plain = |it: char| it.is_ascii_alphanumeric() || "._-".contains(it);
    if !(1..=128).contains(&name.len()) || !name.chars().all(plain) || name.starts_with('.') {
        let what = "`secret_credential` is not the name of a credential";
        let help = "write the name in LoadCredential=, such as \"pager\"";
        problems.push(Problem::error(ProblemCode::BadName, at, what).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_secret_is_read_only_where_others_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let source = SecretSource::File(path.clone());
        assert!(source.read().unwrap_err().contains("No such file"));
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("hunter2\n", 0o600);
        assert_eq!(source.read().unwrap().expose(), "hunter2");
        assert!(!format!("{:?}", source.read()).contains("hunter2"));
        write("hunter2", 0o640);
        source.read().unwrap();
        for (text, mode) in [("hunter2", 0o644), ("", 0o600), ("\n", 0o600), ("a\nb", 0o600)] {
            write(text, mode);
            let error = source.read().unwrap_err();
            assert!(!error.contains("hunter2") && error.contains("key"), "{error}");
        }
        write(&"x".repeat(20_000), 0o600);
        source.read().unwrap_err();
        SecretSource::File(dir.path().to_owned()).read().unwrap_err();
    }
}
