//! `rollbackd status`

use std::fmt::Write as _;

use clap::Args;

use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::{IncidentStatus, ReleaseStatus, Request, Response, Status};

/// Show the state of every service.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// One service; all by default.
    service: Option<String>,
    /// One JSON object per service, a line each.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, json } = options;
    let mut client = match daemon.send_request(&Request::Status { service }).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    loop {
        match client.next_response().await {
            Ok(None) => return Exit::Done,
            Ok(Some(Response::Status(status))) if json => output::json_line(&status),
            Ok(Some(Response::Status(status))) => output::stdout_line(&render(&status)),
            Ok(Some(Response::Refused { code, because })) => {
                output::error_line(&because);
                return code.into();
            }
            Ok(Some(_)) => (),
            Err(error) => return connection_lost(&error),
        }
    }
}

fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_status(&mut text, status);
    text
}

fn write_status(text: &mut String, status: &Status) -> std::fmt::Result {
    let Status { service, listen, mode, deploy, phase, waits_for, .. } = status;
    let name_or_none = |name: &Option<String>| name.clone().unwrap_or_else(|| "none".to_owned());
    let (active, warm) = (name_or_none(&status.active), name_or_none(&status.warm));
    writeln!(
        text,
        "{service}  {listen}  active {active}  warm {warm}  deploy {deploy}  mode {mode}"
    )?;
    write!(text, "  {phase} for {}: {waits_for}", format_seconds(status.since_s))?;
    if let Some(remaining) = status.remaining_s {
        write!(text, ", {} left", format_seconds(remaining))?;
    }
    writeln!(text)?;
    if let Some(hold) = &status.hold {
        writeln!(text, "  HELD: {hold}")?;
    }
    if let Some(error) = &status.error {
        writeln!(text, "  ERROR: {error}")?;
    }
    if status.journal_lost > 0 {
        let lost = status.journal_lost;
        writeln!(
            text,
            "  ERROR: {lost} messages did not reach the log; the timeline has all of them"
        )?;
    }
    if let Some(incidents) = &status.incidents {
        write_incidents(text, service, incidents)?;
    }
    for release in &status.releases {
        write_release(text, release)?;
    }
    let allowed = 100.0 * (1.0 - status.objective);
    let remaining = status.budget_remaining;
    writeln!(
        text,
        "  objective: at most {allowed:.2} % bad; error budget of the last hour: {remaining:.1} bad requests left"
    )?;
    if let Some(evidence) = &status.evidence {
        writeln!(
            text,
            "  evidence: {} {:.2} of {:.0} needed ({:.0} % of the way), {} of {} requests bad",
            evidence.objective,
            evidence.e_value,
            evidence.threshold,
            100.0 * evidence.progress(),
            evidence.bad,
            evidence.judged
        )?;
    }
    if let Some(verdict) = &status.verdict {
        writeln!(text, "  verdict: {verdict}")?;
    }
    if !status.quarantine.is_empty() {
        writeln!(text, "  quarantine: {}", status.quarantine.join(", "))?;
    }
    Ok(())
}

fn write_incidents(text: &mut String, service: &str, it: &IncidentStatus) -> std::fmt::Result {
    if let Some(number) = it.unacknowledged {
        writeln!(text, "  PAGE: incident {number} waits for a person: `rollbackd ack {service}`")?;
    }
    if let Some(error) = &it.error {
        writeln!(text, "  ERROR: {error}")?;
    }
    if it.open > 0 {
        let (number, age_s) = it.oldest;
        let overdue = if it.overdue { ", OVERDUE" } else { "" };
        let age = format_seconds(age_s as f64);
        writeln!(
            text,
            "  open reviews: {} (oldest: incident {number}, {age}{overdue}): `rollbackd postmortem \
             {service} {number}`",
            it.open
        )?;
    }
    Ok(())
}

fn write_release(text: &mut String, release: &ReleaseStatus) -> std::fmt::Result {
    let ReleaseStatus { version, slot, role, probe, sessions, in_flight, .. } = release;
    writeln!(
        text,
        "  {role:<8} {version:<16} {slot:<8} {sessions:>6} sessions  {:>8.1} requests/s  \
         {in_flight:>4} open  {:>6.2} % bad  probe: {probe}",
        release.rate,
        100.0 * release.error_rate,
    )
}

pub(super) fn format_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.1} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}
