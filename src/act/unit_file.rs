//! The file from which a unit gets its environment: `EnvironmentFile=` of the template.
//!
//! It tells the next daemon what runs in a slot. systemd keeps no variables for us, and the
//! environment of another user's process can not be read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::bus::{State, Weights};
use crate::model::Number;

/// The longest file that is read back, in bytes.
const BYTES_MAX: u64 = 1 << 20;
const RUNS: &str = "# runs ";
const PROGRAM: &str = "# program ";
const WEIGHTS: &str = "# weights ";
const NUMBER: &str = "ROLLBACKD_NUMBER=\"";

/// The environment file of one slot.
#[derive(Debug, Clone)]
pub(super) struct UnitFile {
    pub(super) path: PathBuf,
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// The release that it is for.
    pub(super) number: Option<Number>,
    /// The run of the unit that was seen with it.
    pub(super) runs: Option<String>,
    /// The program of that run, with its arguments.
    pub(super) program: Option<Vec<String>>,
    /// The weights that the unit has by itself, whatever we gave it.
    pub(super) weights: Option<Weights>,
    /// When it was written, in microseconds since 1970.
    pub(super) at: u64,
}

impl UnitFile {
    pub(super) fn of(state_dir: &Path, service: &str, slot: &str) -> Self {
        Self { path: state_dir.join(service).join(format!("{slot}.env")) }
    }

    /// What is written there; `None` where there is no such file, or it can not be read.
    pub(super) fn read(&self) -> Option<Written> {
        let meta = fs::metadata(&self.path).ok().filter(|meta| meta.len() <= BYTES_MAX)?;
        let text = fs::read_to_string(&self.path).ok()?;
        let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        let number = line(NUMBER).and_then(|it| it.trim_end_matches('"').parse().ok()).map(Number);
        let since = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let at = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let program = line(PROGRAM).and_then(|it| serde_json::from_str(it).ok());
        let weights = line(WEIGHTS).and_then(|it| serde_json::from_str(it).ok());
        let weights = weights.map(|(cpu, io)| Weights { cpu, io });
        Some(Written { number, runs: line(RUNS).map(str::to_owned), program, weights, at })
    }

    /// Writes it whole or not at all, with the unit's own weights, and with the run that was `seen`
    /// with it, if one was; it is on disk when this returns.
    pub(super) fn write(
        &self,
        variables: &BTreeMap<String, String>,
        weights: Weights,
        seen: Option<&State>,
    ) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(&self.path);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text(variables, weights, seen).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn text(variables: &BTreeMap<String, String>, weights: Weights, seen: Option<&State>) -> String {
    let mut text = "# Written by rollbackd for each start; changes here are lost.\n".to_owned();
    let weights = serde_json::to_string(&(weights.cpu, weights.io)).unwrap_or_default();
    text.push_str(&format!("{WEIGHTS}{weights}\n"));
    if let Some(State { invocation, program, .. }) = seen {
        let program = serde_json::to_string(program).unwrap_or_default();
        text.push_str(&format!("{RUNS}{invocation}\n{PROGRAM}{program}\n"));
    }
    for (name, value) in variables {
        text.push_str(&format!("{name}=\"{}\"\n", quoted(value)));
    }
    text
}

/// systemd.exec(5): within double quotes these four are escaped, and lines may end.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len());
    for letter in value.chars() {
        if matches!(letter, '"' | '\\' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = UnitFile::of(dir.path(), "weather", "blue");
        assert_eq!(file.read(), None);
        let variables = [("ROLLBACKD_NUMBER", "42"), ("TEXT", "a \"b\" $c `d` \\e\nf")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let weights = Weights { cpu: Some(300), io: None };
        file.write(&variables.clone().into(), weights, None).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.number, read.runs), (Some(Number(42)), None));
        assert_eq!(read.weights, Some(weights));
        let program = vec!["/bin/x".to_owned(), "--a b".to_owned()];
        let seen =
            State { invocation: "abc".to_owned(), program: program.clone(), ..State::default() };
        file.write(&variables.into(), weights, Some(&seen)).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.runs.as_deref(), read.program), (Some("abc"), Some(program)));
        let text = fs::read_to_string(&file.path).unwrap();
        assert!(text.ends_with("TEXT=\"a \\\"b\\\" \\$c \\`d\\` \\\\e\nf\"\n"), "{text}");
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("weather")).unwrap().count(), 1);
    }
}
