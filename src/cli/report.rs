//! `rollbackd report`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::DaemonOptions;
use crate::cli::exit::Exit;
use crate::cli::incidents::query;
use crate::cli::output;
use crate::control::{IncidentReply, IncidentRequest};
use crate::incident::{Report, render_report_html, render_report_text};

/// Show statistics over deploys and incidents: failure rate, times, false alarms.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How far back, in days, such as 90d.
    #[arg(long, default_value = "90d", value_parser = parse_days, value_name = "DAYS")]
    since: Duration,
    /// One service; all by default.
    #[arg(long, add = complete::services())]
    service: Option<String>,
    /// Write one HTML file with a chart.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// `90d`, at most ten years.
fn parse_days(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|it| it.parse::<u32>().ok());
    let days = days.filter(|it| (1..=3650).contains(it));
    days.map(|it| Duration::from_hours(24 * u64::from(it)))
        .ok_or_else(|| "write 1 to 3650 days, such as 90d".to_owned())
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { since, service, html, json } = options;
    let request = IncidentRequest::Report { service, since_s: since.as_secs() };
    let replies = match query(daemon, request).await {
        Ok(replies) => replies,
        Err(exit) => return exit,
    };
    let report = replies.into_iter().find_map(|reply| match reply {
        IncidentReply::Report(report) => Some(*report),
        _ => None,
    });
    match report {
        Some(report) => print(&report, html, json),
        None => {
            output::error_line("the daemon sent no report");
            Exit::Failed
        }
    }
}

fn print(report: &Report, html: Option<PathBuf>, json: bool) -> Exit {
    match html {
        _ if json => output::json_line(report),
        None => output::stdout_line(render_report_text(report).trim_end()),
        Some(path) => {
            if let Err(error) = std::fs::write(&path, render_report_html(report)) {
                output::error_line(&format!("cannot write {}: {error}", path.display()));
                return Exit::Failed;
            }
            output::stdout_line(&format!("written: {}", path.display()));
        }
    }
    Exit::Done
}
