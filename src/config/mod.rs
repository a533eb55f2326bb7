//! As written -> every problem found -> [`ServerSettings`].
//!
//! [`table`] and [`value`] read the text and keep the place of everything, [`written`] lists what
//! can be written, and [`check`] turns that into [`ServerSettings`]. Nothing stops at the first problem:
//! an operator sees all of them in one run.

mod address;
mod probe;
mod problem;
mod range;
mod raw;
mod runtime;
mod scrape;
mod selector;
mod service;
mod settings;
mod slo;
mod thresholds;
mod toml_table;
mod value;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use problem::{Problem, ProblemCode, ProblemLevel, Problems};
pub use selector::Selector;
pub use settings::{
    Address, CommandRuntime, ProbeKind, ProbeSettings, ProxyLimits, Runtime, ScrapeSettings,
    ScrapeTarget, Service, SessionState, Settings, UnitTemplate,
};
use toml::de::DeTable;

/// The longest configuration that is read, in bytes.
pub const BYTES_MAX: u64 = 1 << 20;

/// Settings to run with, and what is odd about them.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// What the daemon works with.
    pub settings: Settings,
    /// Warnings only; often empty.
    pub warnings: Problems,
}

/// Reads and checks a file.
///
/// # Errors
/// Every problem that was found, warnings too, if at least one is an error. A file that can not be
/// read is a problem as well.
pub fn load(path: &Path) -> Result<LoadedConfig, Problems> {
    let name = path.display().to_string();
    let file_problem = |code, what: String, help| Problems::of_file(&name, code, what, help);
    let unreadable = |error: std::io::Error| {
        let what = format!("the configuration can not be read: {error}");
        file_problem(ProblemCode::Unreadable, what, "check the path and the rights of the file")
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(too_large(&name));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid_up_to = error.utf8_error().valid_up_to();
        let line =
            error.as_bytes().iter().take(valid_up_to).filter(|byte| **byte == b'\n').count() + 1;
        let what = format!("the configuration is not UTF-8 text: line {line}, byte {valid_up_to}");
        file_problem(ProblemCode::NotUtf8, what, "save the file as UTF-8")
    })?;
    parse(&name, &text)
}

/// Checks a text; `file_name` stands in the messages.
///
/// # Errors
/// Every problem that was found, warnings too, if at least one is an error.
pub fn parse(file_name: &str, text: &str) -> Result<LoadedConfig, Problems> {
    if text.len() as u64 > BYTES_MAX {
        return Err(too_large(file_name));
    }
    let mut problems = Problems::new(file_name, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or(0..0);
        let what = format!("this is not TOML: {}", error.message());
        let help = if error.message().starts_with("duplicate") {
            "write it once"
        } else {
            "write `name = value`, with text in quotes, below a [section]"
        };
        problems.push(Problem::error(ProblemCode::Syntax, at, what).help(help));
    }
    // What was recovered from broken text may lack what is written, so it is not judged.
    if !errors.is_empty() {
        problems.sort();
        return Err(problems);
    }
    let written = raw::read(root.get_ref(), &mut problems);
    let settings = service::build_settings(&written, &mut problems);
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
