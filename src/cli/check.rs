//! `rollbackd check`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Problems, Runtime, Settings};

use super::exit::Exit;
use super::{CONFIG, say, traffic};

/// Check a configuration and report every problem in it.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only tell whether this systemd unit is one that the daemon may start and stop: polkit asks.
    #[arg(long, value_name = "UNIT")]
    manages: Option<String>,
}

pub(super) fn run(options: &Options, config: Option<PathBuf>) -> Exit {
    let path = options.file.clone().or(config).unwrap_or_else(|| PathBuf::from(CONFIG));
    match config::load(&path) {
        Ok(checked) => {
            if let Some(unit) = &options.manages {
                return manages(&path, &checked.settings, unit);
            }
            print(&checked.warnings);
            traffic::untestable(&checked.settings).iter().for_each(|warning| say::aside(warning));
            let services = checked.settings.services.len();
            let noun = if services == 1 { "service" } else { "services" };
            say::line(&format!("{}: good, {services} {noun}", path.display()));
            Exit::Done
        }
        Err(problems) => {
            refuse(&path, &problems);
            Exit::BadConfig
        }
    }
}

/// Whether a unit is an instance of a configured template, for a slot that there is.
fn manages(path: &Path, settings: &Settings, unit: &str) -> Exit {
    let ours = settings.services.values().any(|service| match &service.runtime {
        Runtime::Systemd(template) => service.slots.keys().any(|it| template.instance(it) == unit),
        Runtime::Command(_) | Runtime::External => false,
    });
    let path = path.display();
    if ours {
        say::line(&format!("{path}: {unit} runs releases"));
        return Exit::Done;
    }
    say::error(&format!("{path}: {unit:?} is none of the units that run releases"));
    Exit::Failed
}

/// Tells what is wrong with a configuration.
pub(super) fn refuse(path: &Path, problems: &Problems) {
    print(problems);
    let errors = problems.iter().filter(|it| it.weight == config::Weight::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    say::error(&format!("{}: {errors} error{plural}", path.display()));
}

fn print(problems: &Problems) {
    if problems.is_empty() {
        return;
    }
    let coloured = std::io::stderr().is_terminal();
    say::aside(&if coloured { problems.coloured().to_string() } else { problems.to_string() });
}
