//! The configuration: a text becomes spanned values, every problem, and at last [`Settings`].
//!
//! 1. `toml_table` and `value` read the text key by key and keep the span of each value.
//! 2. A file for each topic (`probe`, `runtime`, `scrape`, `slo`, ...) owns its keys, their checks
//!    and their settings; `raw` and `service` combine the topics.
//! 3. `thresholds` checks that the objectives can be missed at all.
//!
//! The text is not deserialized with serde. serde stops at the first error, and its values have no
//! spans. Here an operator gets all problems in one run: each with its line, with the setting that
//! contradicts it, and with what to write instead.

mod address;
mod channel;
mod daemon;
mod email;
mod front;
mod hosts;
mod incidents;
mod limits;
mod name;
mod notify;
mod placeholder;
mod probe;
mod problem;
mod ramp;
mod range;
mod raw;
mod release_user;
mod runtime;
mod schema;
mod scrape;
mod secret;
mod selector;
mod service;
mod setting_value;
mod settings;
mod slo;
mod syntax;
mod thresholds;
mod toml_table;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

pub use crate::config::address::Address;
pub use crate::config::channel::{ChannelSettings, ChannelTarget, EmailSettings, SmtpTls};
pub use crate::config::front::{TrustedProxies, UpstreamHost, slot_host};
pub use crate::config::incidents::IncidentSettings;
pub use crate::config::limits::ProxyLimits;
pub use crate::config::probe::{ProbeKind, ProbeSettings};
pub use crate::config::problem::{
    Problem, ProblemCode, ProblemLevel, ProblemReport, Problems, Related,
};
pub use crate::config::release_user::ReleaseUser;
pub use crate::config::runtime::{CommandRuntime, Runtime, UnitTemplate};
pub use crate::config::schema::{Key, Shape, keys, schema};
pub use crate::config::scrape::{ScrapeSettings, ScrapeTarget};
pub use crate::config::secret::{Secret, SecretSource};
pub use crate::config::selector::Selector;
pub use crate::config::setting_value::{SETTING_NAMES, availability, normal_value, setting_value};
pub use crate::config::settings::{PageSettings, Service, SessionState, Settings};
pub use crate::config::value::{format_duration, format_percent};

/// Largest configuration, in bytes.
pub const BYTES_MAX: u64 = 1 << 20;

/// Valid settings, and the warnings about them.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The settings of the daemon.
    pub settings: Settings,
    /// Warnings only.
    pub warnings: Problems,
}

/// Reads and checks a file.
///
/// # Errors
/// Every problem, also warnings, if at least one is an error. A file that cannot be read is a
/// problem too.
pub fn load(path: &Path) -> Result<LoadedConfig, Problems> {
    parse(&path.display().to_string(), &read_file(path)?)
}

/// The control socket that a file names, whatever else is wrong in it: the daemon that runs may have read it
/// when it was right.
pub fn named_control_socket(path: &Path) -> Option<PathBuf> {
    let text = read_file(path).ok()?;
    let (root, _) = DeTable::parse_recoverable(&text);
    let raw = raw::read(root.get_ref(), &mut Problems::new("", &text));
    raw.daemon.control_socket.map(Spanned::into_inner)
}

fn read_file(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let file_problem = |code, what: String, help| Problems::of_file(&name, code, what, help);
    let unreadable = |error: std::io::Error| {
        let what = format!("cannot read the configuration: {error}");
        file_problem(
            ProblemCode::Unreadable,
            what,
            "check the path and the permissions of the file",
        )
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(too_large(&name));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        let line =
            error.as_bytes().iter().take(valid_up_to).filter(|byte| **byte == b'\n').count() + 1;
        let what = format!("the configuration is not UTF-8 text: line {line}, byte {valid_up_to}");
        file_problem(ProblemCode::NotUtf8, what, "save the file as UTF-8")
    })
}

/// Checks a text; messages name `file_name`.
///
/// # Errors
/// Every problem, also warnings, if at least one is an error.
pub fn parse(file_name: &str, text: &str) -> Result<LoadedConfig, Problems> {
    if text.len() as u64 > BYTES_MAX {
        return Err(too_large(file_name));
    }
    let mut problems = Problems::new(file_name, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        syntax::report(text, root.get_ref(), &errors, &mut problems);
        syntax::check_rest(file_name, text, root.get_ref(), &errors, &mut problems);
        problems.sort();
        return Err(problems);
    }
    let raw = raw::read(root.get_ref(), &mut problems);
    let settings = raw::build_settings(&raw, &mut problems);
    problems.sort();
    if problems.has_errors() {
        Err(problems)
    } else {
        Ok(LoadedConfig { settings, warnings: problems })
    }
}

fn too_large(name: &str) -> Problems {
    let what = format!("the configuration is larger than {BYTES_MAX} bytes");
    Problems::of_file(name, ProblemCode::TooLarge, what, "check that this is the right file")
}
