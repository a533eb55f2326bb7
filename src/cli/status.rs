//! `rollbackd status`

use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;

use crate::cli::complete;
use crate::cli::daemon_options::{DaemonOptions, connection_lost};
use crate::cli::evidence::evidence_line;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::status_lines::Lines;
use crate::cli::terminal::Terminal;
use crate::cli::trial_lines::trial_lines;
use crate::cli::unjudged;
use crate::control::{
    IncidentStatus, LastOutcome, ReleaseStatus, Request, Response, RollbackCount, Status,
};
use crate::model::format_seconds;

/// The time between two pictures of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Show the state of every service: what happened last, and whether an operator is needed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// One service; all by default.
    #[arg(add = complete::services())]
    service: Option<String>,
    /// One JSON object per service, a line each.
    #[arg(long)]
    json: bool,
    /// Show it again every second, in place, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(options: Options, daemon: &DaemonOptions) -> Exit {
    let Options { service, json, watch } = options;
    let request = Request::Status { service };
    if watch {
        return watch_statuses(&request, json, daemon).await;
    }
    let mut client = match daemon.send_request(&request).await {
        Ok(client) => client,
        Err(exit) => return exit,
    };
    let terminal = Terminal::stdout();
    loop {
        match client.next_response().await {
            Ok(None) => return Exit::Done,
            Ok(Some(Response::Status(status))) if json => output::json_line(&status),
            Ok(Some(Response::Status(status))) => {
                output::stdout_line(&render(&status, terminal));
            }
            Ok(Some(Response::Refused { code, because, .. })) => {
                output::error_line(&because);
                return code.into();
            }
            Ok(Some(_)) => (),
            Err(error) => return connection_lost(&error),
        }
    }
}

/// Shows the statuses again and again. A daemon that restarts meanwhile does not end it.
async fn watch_statuses(request: &Request, json: bool, daemon: &DaemonOptions) -> Exit {
    let mut interval = tokio::time::interval(WATCH_INTERVAL);
    let mut was_answered = false;
    loop {
        interval.tick().await;
        let mut picture = String::new();
        match daemon.connect(request).await {
            Ok(mut client) => loop {
                match client.next_response().await {
                    Ok(Some(Response::Status(status))) if json => output::json_line(&status),
                    Ok(Some(Response::Status(status))) => {
                        picture.push_str(&render(&status, Terminal::stdout()));
                        picture.push('\n');
                    }
                    Ok(Some(Response::Refused { code, because, .. })) => {
                        output::error_line(&because);
                        return code.into();
                    }
                    Ok(Some(_)) => (),
                    Ok(None) | Err(_) => break was_answered = true,
                }
            },
            Err(error) if !was_answered || error.is_forbidden() => return error.report(),
            Err(_) => picture.push_str("no word from the daemon; asking again\n"),
        }
        if !json {
            show(&picture, Terminal::stdout());
        }
    }
}

/// Draws a picture over the one before, or below it where the terminal cannot.
fn show(picture: &str, terminal: Terminal) {
    let mut stdout = io::stdout().lock();
    let drawn = if terminal.can_redraw {
        let rows = terminal.height.saturating_sub(1);
        let lines: Vec<_> = picture.lines().take(rows).collect();
        // Each line clears its rest, the end clears what is below: nothing flickers.
        write!(stdout, "\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"))
    } else {
        writeln!(stdout, "{picture}")
    };
    let _: io::Result<()> = drawn.and_then(|()| stdout.flush());
}

fn render(status: &Status, terminal: Terminal) -> String {
    let Status { service, listen, mode, deploy, phase, waits_for, .. } = status;
    let active = name(status, "active", status.active.as_ref());
    let warm = name(status, "warm", status.warm.as_ref());
    let mut lines = Lines::new(terminal);
    let title =
        format!("{service}  {listen}  active {active}  warm {warm}  deploy {deploy}  mode {mode}");
    // Two blanks separate the parts; a narrow terminal has one.
    let title = if title.len() <= terminal.width { title } else { title.replace("  ", " ") };
    lines.push(&title);
    let mut now = format!("  {phase} for {}: {waits_for}", format_seconds(status.since_s));
    if let Some(remaining) = status.remaining_s {
        now.push_str(&format!(", {} left", format_seconds(remaining)));
    }
    lines.push(&now);
    if let Some(last) = &status.last {
        lines.push(&last_line(last));
        last.rule.iter().for_each(|rule| lines.push(&format!("    rule: {rule}")));
    }
    match &status.attention {
        Some(attention) => lines.warn(&format!("  ACTION NEEDED: {attention}")),
        None if *phase == "steady" && !fails(status) => lines.push("  no action is needed"),
        None => (),
    }
    if let Some(hold) = &status.hold {
        lines.warn(&format!("  HELD: {hold}"));
    }
    if let Some(error) = &status.error {
        lines.warn(&format!("  ERROR: {error}"));
    }
    if status.journal_lost > 0 {
        let lost = status.journal_lost;
        lines.warn(&format!(
            "  ERROR: {lost} messages did not reach the log; the timeline has all of them"
        ));
    }
    if let Some(incidents) = &status.incidents {
        push_incidents(&mut lines, &status.service, incidents);
    }
    push_channels(&mut lines, status);
    push_traffic(&mut lines, status);
    trial_lines(status).iter().for_each(|line| lines.push(line));
    lines.push(&objective_line(status));
    if let Some(evidence) = &status.evidence {
        lines.push(&evidence_line(evidence));
    }
    push_verdict(&mut lines, status);
    if let Some(count) = status.rollbacks.as_ref().filter(|it| 0 < it.today) {
        lines.push(&rollbacks_line(service, count));
    }
    push_waiting_settings(&mut lines, status);
    if !status.quarantine.is_empty() {
        lines.push(&format!(
            "  quarantine, a deploy needs --allow-quarantined: {}",
            status.quarantine.join(", ")
        ));
    }
    lines.text
}

/// Whether something fails now that a person has to look at, although the service rests.
fn fails(status: &Status) -> bool {
    let channels = || status.channels.iter().any(|it| it.failing_s.is_some());
    status.error.is_some() || status.notify_error.is_some() || channels()
}

fn push_verdict(lines: &mut Lines, status: &Status) {
    if let Some(verdict) = &status.verdict {
        lines.push(&format!("  verdict: {verdict}"));
    }
    if let Some(rule) = &status.rule {
        lines.push(&format!("    rule: {rule}"));
    }
}

/// The settings that a reload found and that are not in effect.
fn push_waiting_settings(lines: &mut Lines, status: &Status) {
    if !status.awaits_deploy.is_empty() {
        let names = status.awaits_deploy.join(", ");
        lines.push(&format!("  changed settings that wait for the next deploy: {names}"));
    }
    if !status.awaits_restart.is_empty() {
        let names = status.awaits_restart.join(", ");
        lines.push(&format!("  changed settings that wait for a restart of rollbackd: {names}"));
    }
}

/// The channels that fail, and what else keeps notices from people.
fn push_channels(lines: &mut Lines, status: &Status) {
    for channel in &status.channels {
        let Some(failing_s) = channel.failing_s else { continue };
        let (name, kind, waiting) = (&channel.name, &channel.channel_type, channel.waiting);
        let since = format_seconds(failing_s as f64);
        let error = channel.error.as_deref().unwrap_or("no answer yet");
        lines.warn(&format!(
            "  ERROR: channel {name} ({kind}) fails for {since}, {waiting} notices wait: {error}"
        ));
    }
    if let Some(error) = &status.notify_error {
        lines.warn(&format!("  ERROR: {error}"));
    }
}

/// What each release carries, what it carries beside the endpoint, and what is nearly too much.
fn push_traffic(lines: &mut Lines, status: &Status) {
    for release in &status.releases {
        lines.push(&release_line(release));
        if 0 < release.sse_sessions {
            let sessions = counted(release.sse_sessions, "session");
            lines.push(&format!(
                "           {sessions} by HTTP+SSE (2024-11-05): they stay here until they end"
            ));
        }
        for line in unjudged::lines(release.unjudged) {
            lines.push(&format!("           {line}"));
        }
    }
    for path in &status.mcp_paths {
        let judged = if path.judged { "judged" } else { "not answered as MCP, not judged" };
        lines.push(&format!("  JSON-RPC at {}: {} requests, {judged}", path.path, path.requests));
    }
    for near in &status.near_limits {
        lines.warn(&format!("  NEAR A LIMIT: {near}"));
    }
}

/// Today's time is enough for what happened within a day.
fn last_line(last: &LastOutcome) -> String {
    const DAY_S: f64 = 86_400.0;
    let (date, time) = last.at.split_once('T').unwrap_or(("", &last.at));
    let minute = time.get(..5).unwrap_or(time);
    let date = if last.since_s < DAY_S { String::new() } else { format!("{date} ") };
    let ago = format_seconds(last.since_s);
    format!("  {date}{minute} UTC, {ago} ago, deploy {}: {}", last.deploy, last.text)
}

pub(super) fn release_line(release: &ReleaseStatus) -> String {
    let ReleaseStatus { version, slot, role, probe, sessions, in_flight, rate, .. } = release;
    // A share of no requests is not 0.
    let bad = match release.recent_requests {
        Some(0) => "no requests judged in the last minute".to_owned(),
        _ => format!("{:.2} % bad", 100.0 * release.error_rate),
    };
    let sessions = counted(*sessions, "session");
    format!(
        "  {role:<8} {version:<10} {slot:<7} {rate:>6.1} requests/s, {bad}, {sessions}, \
         {in_flight} open; probe: {probe}"
    )
}

fn objective_line(status: &Status) -> String {
    let allowed = 100.0 * (1.0 - status.objective);
    let remaining = status.budget_remaining;
    let budget = match status.budget_requests {
        Some(0) => "not known, no requests were judged".to_owned(),
        _ if remaining < 0.0 => format!("overdrawn by {:.1} bad requests", -remaining),
        _ => format!("{remaining:.1} bad requests left"),
    };
    format!("  objective: at most {allowed:.2} % bad; error budget of the last hour: {budget}")
}

/// What the incidents of a service ask for.
fn push_incidents(lines: &mut Lines, service: &str, it: &IncidentStatus) {
    if let Some(number) = it.unacknowledged {
        lines.warn(&format!(
            "  PAGE: incident {number} waits for a person: `rollbackd ack {service}`"
        ));
    }
    if let Some(error) = &it.error {
        lines.warn(&format!("  ERROR: {error}"));
    }
    if it.open > 0 {
        let (number, age_s) = it.oldest;
        let overdue = if it.overdue { ", OVERDUE" } else { "" };
        let age = format_seconds(age_s as f64);
        lines.push(&format!(
            "  open reviews: {} (oldest: incident {number}, {age}{overdue}): `rollbackd postmortem \
             {service} {number}`",
            it.open
        ));
    }
}

/// How many automatic rollbacks are left today, once there was one.
fn rollbacks_line(service: &str, count: &RollbackCount) -> String {
    let RollbackCount { today, limit, none_left_s } = count;
    let left = none_left_s.map(|seconds| {
        format!(
            ": none is left for {}; a deploy needs --without-net, `rollbackd resume {service}` \
             resets the count",
            format_seconds(seconds)
        )
    });
    format!("  automatic rollbacks in 24 h: {today} of {limit}{}", left.unwrap_or_default())
}

/// A version; with its deploy where two releases have the same.
fn name(status: &Status, role: &str, version: Option<&String>) -> String {
    let Some(version) = version else { return "none".to_owned() };
    let mut same = status.releases.iter().filter(|it| it.version == *version);
    let number = status.releases.iter().find(|it| it.role == role).map(|it| it.number);
    match (same.nth(1), number) {
        (Some(_), Some(number)) => format!("{version} (deploy {number})"),
        _ => version.clone(),
    }
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status_lines::{PLAIN, WARNING};
    use crate::model::Evidence;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));

    const REPLIES: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/control-replies.txt"));

    fn status(name: &str) -> Status {
        let line = REPLIES.lines().find_map(|line| line.strip_prefix(&format!("{name}  ")));
        match serde_json::from_str(line.unwrap()).unwrap() {
            Response::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    fn terminal(width: usize) -> Terminal {
        Terminal { can_redraw: false, has_colour: false, width, height: 50 }
    }

    /// The whole status at three widths.
    #[test]
    fn a_status_fits_its_terminal() {
        let mut shown = String::new();
        for width in [40, 80, usize::MAX] {
            let text = render(&status("status"), terminal(width));
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{longest:?} columns:\n{text}");
            shown.push_str(&format!("{text}\n"));
        }
        hold("status-shown.txt", &shown);
    }

    #[test]
    fn beside_an_error_no_status_says_that_no_action_is_needed() {
        let says_so =
            |status: &Status| render(status, terminal(usize::MAX)).contains("no action is needed");
        let mut rests = status("status");
        (rests.phase, rests.attention, rests.error) = ("steady".into(), None, None);
        (rests.notify_error, rests.channels) = (None, Vec::new());
        assert!(says_so(&rests));
        rests.notify_error = Some("cannot write outbox.jsonl".into());
        assert!(!says_so(&rests));
    }

    #[test]
    fn what_is_not_known_is_not_shown_as_zero() {
        let mut idle = status("status");
        (idle.budget_remaining, idle.budget_requests) = (0.0, Some(0));
        idle.releases
            .iter_mut()
            .for_each(|it| (it.error_rate, it.recent_requests) = (0.0, Some(0)));
        idle.evidence = Some(Evidence { threshold: 2000.0, ..Evidence::default() });
        let text = render(&idle, terminal(usize::MAX));
        assert!(!text.contains("0.0 bad") && !text.contains("0.00 %"), "{text}");
        assert!(text.contains("not known, no requests were judged"), "{text}");
        idle.budget_requests = Some(10);
        assert!(render(&idle, terminal(usize::MAX)).contains("0.0 bad requests left"));
    }

    #[test]
    fn only_warnings_have_a_colour() {
        let coloured = Terminal { has_colour: true, ..terminal(40) };
        let text = render(&status("status"), coloured);
        assert_eq!(text.matches(WARNING).count(), text.matches(PLAIN).count());
        assert!(text.contains("\x1b[1;31m  HELD: "), "{text}");
    }
}
