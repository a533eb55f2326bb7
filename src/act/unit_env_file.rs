//! The environment file of a slot: the `EnvironmentFile=` of its unit.
//!
//! The next daemon reads from it which release runs in the slot: systemd stores no such data, and the
//! daemon cannot read the environment of another user's process.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::model::ReleaseNumber;
use crate::systemd::{ResourceWeights, UnitState};

/// The largest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;
const RUN_PREFIX: &str = "# runs ";
const PROGRAM_PREFIX: &str = "# program ";
const WEIGHTS_PREFIX: &str = "# weights ";
const NUMBER_PREFIX: &str = "ROLLBACKD_NUMBER=\"";

/// The environment file of one slot.
#[derive(Debug, Clone)]
pub(super) struct UnitEnvFile {
    pub(super) path: PathBuf,
}

/// The contents of an environment file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct EnvFileContents {
    /// The release that it was written for.
    pub(super) number: Option<ReleaseNumber>,
    /// The recorded run of the unit.
    pub(super) invocation_id: Option<String>,
    /// The command line of that run.
    pub(super) program: Option<Vec<String>>,
    /// The weights that the unit file sets.
    pub(super) weights: Option<ResourceWeights>,
    /// When it was written, in microseconds since 1970.
    pub(super) written_at_us: u64,
}

impl UnitEnvFile {
    pub(super) fn for_slot(state_dir: &Path, service: &str, slot: &str) -> Self {
        Self { path: state_dir.join(service).join(format!("{slot}.env")) }
    }

    /// Reads the file; `None` if it does not exist or cannot be read.
    pub(super) fn read(&self) -> Option<EnvFileContents> {
        let meta = fs::metadata(&self.path).ok().filter(|meta| meta.len() <= BYTES_MAX)?;
        let text = fs::read_to_string(&self.path).ok()?;
        let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        let number = line(NUMBER_PREFIX)
            .and_then(|it| it.trim_end_matches('"').parse().ok())
            .map(ReleaseNumber);
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let written_at_us = u64::try_from(modified.as_micros()).unwrap_or(u64::MAX);
        let program = line(PROGRAM_PREFIX).and_then(|it| serde_json::from_str(it).ok());
        let weights = line(WEIGHTS_PREFIX).and_then(|it| serde_json::from_str(it).ok());
        let weights = weights.map(|(cpu, io)| ResourceWeights { cpu, io });
        Some(EnvFileContents {
            number,
            invocation_id: line(RUN_PREFIX).map(str::to_owned),
            program,
            weights,
            written_at_us,
        })
    }

    /// Replaces the file as a whole; it is on disk when this returns. `weights` are those of the unit
    /// file, `run` is the run to record.
    pub(super) fn write(
        &self,
        variables: &BTreeMap<String, String>,
        weights: ResourceWeights,
        run: Option<&UnitState>,
    ) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(&self.path);
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(render(variables, weights, run).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(dir)?.sync_all()
    }
}

fn render(
    variables: &BTreeMap<String, String>,
    weights: ResourceWeights,
    run: Option<&UnitState>,
) -> String {
    let mut text =
        "# rollbackd writes this file at each start; other changes are lost.\n".to_owned();
    let weights = serde_json::to_string(&(weights.cpu, weights.io)).unwrap_or_default();
    text.push_str(&format!("{WEIGHTS_PREFIX}{weights}\n"));
    if let Some(UnitState { invocation_id, exec_start, .. }) = run {
        let program = serde_json::to_string(exec_start).unwrap_or_default();
        text.push_str(&format!("{RUN_PREFIX}{invocation_id}\n{PROGRAM_PREFIX}{program}\n"));
    }
    for (name, value) in variables {
        text.push_str(&format!("{name}=\"{}\"\n", quote(value)));
    }
    text
}

/// systemd.exec(5): double quotes need these four escaped, and may contain line breaks.
fn quote(value: &str) -> String {
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
    fn a_written_file_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = UnitEnvFile::for_slot(dir.path(), "weather", "blue");
        assert_eq!(file.read(), None);
        let variables = [("ROLLBACKD_NUMBER", "42"), ("TEXT", "a \"b\" $c `d` \\e\nf")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let weights = ResourceWeights { cpu: Some(300), io: None };
        file.write(&variables.clone().into(), weights, None).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.number, read.invocation_id), (Some(ReleaseNumber(42)), None));
        assert_eq!(read.weights, Some(weights));
        let program = vec!["/bin/x".to_owned(), "--a b".to_owned()];
        let seen = UnitState {
            invocation_id: "abc".to_owned(),
            exec_start: program.clone(),
            ..UnitState::default()
        };
        file.write(&variables.into(), weights, Some(&seen)).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.invocation_id.as_deref(), read.program), (Some("abc"), Some(program)));
        let text = fs::read_to_string(&file.path).unwrap();
        assert!(text.ends_with("TEXT=\"a \\\"b\\\" \\$c \\`d\\` \\\\e\nf\"\n"), "{text}");
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("weather")).unwrap().count(), 1);
    }
}
