//! `rollbackd check`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::backtest::recorded_traffic;
use crate::cli::daemon_options::config_path;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::status_lines::Lines;
use crate::cli::terminal::Terminal;
use crate::config::{self, Problems, Runtime, Settings};
use crate::{notify, preflight};

/// Check a configuration and report every problem in it.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also look at this host: directories, ports, programs, units, podman, and the artifacts of the
    /// newest deploys. Nothing changes.
    #[arg(long, conflicts_with = "manages")]
    host: bool,
    /// One JSON object per problem, a line each, on stdout.
    #[arg(long, conflicts_with = "manages")]
    json: bool,
    /// Only check whether the daemon manages this systemd unit; for polkit rules.
    #[arg(long, value_name = "UNIT")]
    manages: Option<String>,
}

pub(super) async fn run(options: &Options, config: Option<PathBuf>) -> Exit {
    let path = config_path(options.file.as_deref(), config.as_deref());
    match config::load(&path) {
        Ok(loaded) => {
            if let Some(unit) = &options.manages {
                return check_managed_unit(&path, &loaded.settings, unit);
            }
            let recorded = recorded_traffic::undetectable_objectives(&loaded.settings);
            let secrets = notify::secret_problems(&loaded.settings);
            if options.json {
                print_json(&loaded.warnings);
                print_warnings_json("recorded-traffic", &recorded);
                print_warnings_json("secret", &secrets);
            } else {
                print_problems(&loaded.warnings);
                recorded.iter().chain(&secrets).for_each(|warning| output::stderr_line(warning));
                let services = loaded.settings.services.len();
                let noun = if services == 1 { "service" } else { "services" };
                output::stdout_line(&format!("{}: good, {services} {noun}", path.display()));
            }
            if options.host { check_host(&loaded.settings, options.json).await } else { Exit::Done }
        }
        Err(problems) => {
            if options.json {
                print_json(&problems);
            } else {
                report_problems(&path, &problems);
            }
            Exit::InvalidConfig
        }
    }
}

fn print_json(problems: &Problems) {
    problems.reports().iter().for_each(output::json_line);
    if problems.omitted() > 0 {
        output::error_line(&format!("{} more problems are not listed", problems.omitted()));
    }
}

/// Warnings that no line of the file causes.
fn print_warnings_json(code: &str, warnings: &[String]) {
    for warning in warnings {
        let message = warning.strip_prefix("warning: ").unwrap_or(warning);
        output::json_line(&json!({ "level": "warning", "code": code, "message": message }));
    }
}

/// Prints what this host has and lacks.
async fn check_host(settings: &Settings, json: bool) -> Exit {
    let findings = preflight::check(settings).await;
    let mut lines = Lines::new(Terminal::stdout());
    for finding in &findings {
        if json {
            output::json_line(finding);
            continue;
        }
        let service = finding.service.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let text = format!("{service}{}", finding.message);
        if finding.is_error() {
            lines.warn(&format!("  ERROR  {text}"));
            lines.push(&format!("         {}", finding.help));
        } else {
            lines.push(&format!("  ok     {text}"));
        }
    }
    if !json {
        output::stdout_line(lines.text.trim_end_matches('\n'));
    }
    let errors = findings.iter().filter(|it| it.is_error()).count();
    if errors == 0 {
        return Exit::Done;
    }
    let plural = if errors == 1 { "" } else { "s" };
    output::error_line(&format!("this host: {errors} error{plural}"));
    Exit::Failed
}

/// Whether a unit is the instance of a configured template for a configured slot.
fn check_managed_unit(path: &Path, settings: &Settings, unit: &str) -> Exit {
    let managed = settings.services.values().any(|service| match &service.runtime {
        Runtime::Systemd(template) => service.slots.keys().any(|it| template.unit_of(it) == unit),
        Runtime::Command(_) | Runtime::External => false,
    });
    let path = path.display();
    if managed {
        output::stdout_line(&format!("{path}: {unit} runs releases of a service"));
        return Exit::Done;
    }
    output::error_line(&format!(
        "{path}: {unit:?} runs no releases: no service has such a unit template and slot"
    ));
    Exit::Failed
}

/// Reports every problem of a configuration, and how many are errors.
pub(super) fn report_problems(path: &Path, problems: &Problems) {
    print_problems(problems);
    let errors = problems.iter().filter(|it| it.level == config::ProblemLevel::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    output::error_line(&format!("{}: {errors} error{plural}", path.display()));
}

fn print_problems(problems: &Problems) {
    if problems.is_empty() {
        return;
    }
    output::stderr_line(&if Terminal::stderr().has_colour {
        problems.coloured().to_string()
    } else {
        problems.to_string()
    });
}
