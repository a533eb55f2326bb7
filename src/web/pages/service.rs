//! One service.

use std::sync::Arc;

use maud::{Markup, html};

use crate::control::{ReleaseStatus, Status, TrialStatus};
use crate::incident::DeployHistory;
use crate::web::attention::{Level, attention, guard_words, reasons};
use crate::web::format::{count, date_time, milliseconds, number, percent, plain, seconds};
use crate::web::pages::charts::{evidence_chart, traffic_chart};
use crate::web::pages::layout::{PageHead, page, sections};
use crate::web::pages::reviews::reviews;
use crate::web::pages::timeline;
use crate::web::snapshot::{Sections, ServiceSnapshot, Snapshot};
use crate::web::steps::{StepState, steps};

/// Methods and tools that the page lists for each release.
const CALLS_SHOWN: usize = 8;
/// Quarantined releases that the page lists.
const QUARANTINE_SHOWN: usize = 20;

/// The page.
pub(in crate::web) fn service(
    snapshot: &Snapshot,
    service: &ServiceSnapshot,
    head: &PageHead<'_>,
) -> String {
    let main = service_sections(snapshot, &service.name).map(sections).unwrap_or_default();
    page(&title(service), head, Some(&snapshot.wall_time), &main)
}

/// The sections of the page.
pub(in crate::web) fn service_sections<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Option<&'a Sections> {
    snapshot.service_sections(name, render)
}

fn render(service: &ServiceSnapshot) -> Sections {
    let content = |markup: Markup| Arc::from(markup.into_string());
    let mut sections = vec![("summary", content(summary(service)))];
    if let Some(status) = service.status.as_deref() {
        sections.push(("steps", content(step_list(service, status))));
        if let Some(trial) = &status.trial {
            sections.push(("trial", content(trial_arms(trial))));
        }
        sections.push(("releases", content(releases(service, status))));
        sections.push(("evidence", content(evidence(service, status))));
        sections.push(("guards", content(guards(service, status))));
        sections.push(("reviews", content(reviews(&service.name, status))));
    }
    sections.push(("timeline", content(timeline::newest(service))));
    sections.push(("deploys", content(deploys(service))));
    sections
}

fn title(service: &ServiceSnapshot) -> String {
    let mark = if attention(service).level == Level::Now { "(!) " } else { "" };
    format!("{mark}{} - rollbackd", service.name)
}

fn summary(service: &ServiceSnapshot) -> Markup {
    let strongest = attention(service);
    html! {
        h1 data-title=(title(service)) { (service.name) }
        p class={ "badge " (strongest.level.class()) } { (strongest.level.label()) }
        ul.reasons {
            @for reason in reasons(service) { li class=(reason.level.class()) { (reason.reason) } }
        }
        @if let Some(status) = service.status.as_deref() {
            dl.facts {
                dt { "Address" } dd { (plain(&status.listen)) }
                dt { "Deploy" } dd { (status.deploy) }
                dt { "Phase" }
                dd {
                    (plain(&status.phase)) " for " (seconds(status.since_s)) ": " (plain(&status.waits_for))
                    @if let Some(left) = status.remaining_s { ", " (seconds(left)) " left" }
                }
                dt { "Mode" }
                dd {
                    @if status.mode == "observe" { "observe: it records and does not act" }
                    @else { "act" }
                }
                @if let Some(verdict) = &status.verdict { dt { "Verdict" } dd { (plain(verdict)) } }
            }
        } @else {
            p.empty { "No status yet." }
        }
    }
}

fn step_list(service: &ServiceSnapshot, status: &Status) -> Markup {
    let steps = steps(&service.entries);
    let shown = |state| match state {
        StepState::Done(_) => "done",
        StepState::Current => "current",
        StepState::Ahead => "ahead",
        StepState::Skipped => "skipped",
    };
    html! {
        h2 { "Steps of deploy " (status.deploy) }
        @if let Some(ramp) = &status.ramp {
            p {
                @if status.phase == "steady" { "The next deploy gets " } @else { "It gets " }
                (plain(ramp)) "."
            }
        }
        @if steps.is_empty() {
            p.empty { "Nothing was deployed yet. `rollbackd deploy " (service.name) " VERSION` starts." }
        } @else {
            ol.steps {
                @for step in steps {
                    @let current = (step.state == StepState::Current).then_some("step");
                    li class=(shown(step.state)) aria-current=[current] {
                        span.step { (step.name) } " "
                        span.when {
                            @match step.state {
                                StepState::Done(ms) => { "done at +" (milliseconds(ms)) },
                                StepState::Current => "under way",
                                StepState::Ahead => "follows",
                                StepState::Skipped => "not reached",
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Both arms of a ramp, what the tests say, and what is missing.
fn trial_arms(trial: &TrialStatus) -> Markup {
    html! {
        h2 { "Trial" }
        p {
            (percent(trial.share)) " of the users have the new release (step " (trial.step) " of "
            (trial.of) "). " (plain(&trial.summary)) "."
        }
        table {
            thead {
                tr {
                    th scope="col" { "Arm" } th scope="col" { "Release" } th scope="col" { "Users" }
                    th scope="col" { "Requests" } th scope="col" { "Failed" }
                    th scope="col" { "Server, tool, client, neither" }
                }
            }
            tbody {
                @for arm in &trial.arms {
                    tr {
                        th scope="row" { (plain(&arm.arm)) }
                        td { (plain(&arm.version)) }
                        td { (count(arm.subjects)) }
                        td { (count(arm.requests)) }
                        td { (count(arm.failed)) }
                        td {
                            (count(arm.outcomes.server_fault)) ", " (count(arm.outcomes.tool_fault)) ", "
                            (count(arm.outcomes.client_fault)) ", " (count(arm.outcomes.neutral))
                        }
                    }
                }
            }
        }
        @if let Some(missing) = &trial.missing { p { "For a verdict: " (plain(missing)) "." } }
        @if trial.sessions_pinned > 0 {
            p { (count(trial.sessions_pinned)) " sessions cannot move and take no part." }
        }
    }
}

fn releases(service: &ServiceSnapshot, status: &Status) -> Markup {
    html! {
        h2 { "Releases" }
        @if status.releases.is_empty() { p.empty { "No release runs." } }
        ul.releases {
            @for release in &status.releases { (release_card(service, release)) }
        }
    }
}

fn release_card(service: &ServiceSnapshot, release: &ReleaseStatus) -> Markup {
    let counts = &release.counts;
    let failed = counts.server_fault.saturating_add(counts.tool_fault);
    let calls = release.calls.iter().take(CALLS_SHOWN);
    html! {
        li.card {
            h3 { (plain(&release.version)) " " span.badge { (plain(&release.role)) } }
            dl.facts {
                dt { "Slot" } dd { (plain(&release.slot)) ", deploy " (release.number) }
                dt { "Probe" } dd { (plain(&release.probe)) }
                dt { "Sessions" }
                dd { (count(release.sessions)) ", " (count(release.in_flight)) " open requests" }
                dt { "Now" }
                dd { (format!("{:.1}", release.rate)) " requests/s, " (percent(release.error_rate)) " failed" }
                dt { "Since the daemon started" }
                dd {
                    (count(counts.ok)) " ok, " (count(failed)) " failed, "
                    (count(counts.client_fault)) " refused for the client's fault, "
                    (count(counts.neutral)) " neutral, " (count(counts.slow)) " slow"
                }
            }
            (traffic_chart(&service.samples, release))
            @if !release.calls.is_empty() {
                details data-key={ "calls-" (release.number) } {
                    summary { "By method and tool" }
                    div.scroll tabindex="0" role="region" aria-label={ "Calls of " (plain(&release.version)) } {
                        table {
                            thead { tr { th scope="col" { "Call" } th scope="col" { "Requests" } th scope="col" { "Failed" } } }
                            tbody {
                                @for call in calls {
                                    tr {
                                        th scope="row" { (plain(&call.method)) " " (plain(&call.name)) }
                                        td { (count(call.counts.total())) }
                                        td { (count(call.counts.server_fault.saturating_add(call.counts.tool_fault))) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn evidence(service: &ServiceSnapshot, status: &Status) -> Markup {
    let allowed = 1.0 - status.objective;
    html! {
        h2 { "Evidence against the release" }
        @if let Some(evidence) = &status.evidence {
            p {
                "Objective " strong { (plain(&evidence.objective)) } ": "
                (count(evidence.bad)) " of " (count(evidence.judged)) " requests bad. The e-value is "
                strong { (number(evidence.e_value)) } "; at " (number(evidence.threshold))
                " it is a verdict (" (format!("{:.0}", 100.0 * evidence.progress()))
                " % of the way on a log scale)."
            }
            @if evidence.e_value > 1.0 {
                p {
                    "A release that meets its objectives gets this far in at most 1 of "
                    (number(evidence.e_value)) " deploys. Further failures raise the value, good requests lower it."
                }
            }
            (evidence_chart(&service.samples, evidence))
        } @else {
            p.empty { "Nothing is judged now: no release is on trial." }
        }
        p {
            "Availability objective: at most " (percent(allowed)) " of the requests fail. "
            @if status.releases.iter().all(|it| it.counts.judged() == 0) {
                "No request was judged yet."
            } @else if status.budget_remaining < 0.0 {
                "The error budget of the last hour is exceeded by " (format!("{:.1}", -status.budget_remaining)) " requests."
            } @else {
                "Error budget left of the last hour: " (format!("{:.1}", status.budget_remaining)) " failed requests."
            }
        }
    }
}

fn guards(service: &ServiceSnapshot, status: &Status) -> Markup {
    let blocking = service.blocking_guard().filter(|_| status.phase == "baking");
    let quarantine = status.quarantine.iter().take(QUARANTINE_SHOWN);
    let more = status.quarantine.len().saturating_sub(QUARANTINE_SHOWN);
    html! {
        h2 { "Guards" }
        ul.guards {
            @if let Some(guard) = blocking { li.now { strong { (guard) } ": " (guard_words(guard)) } }
            @if let Some(hold) = &status.hold { li.soon { strong { "hold" } ": " (plain(hold)) } }
            @if status.mode == "observe" { li { strong { "observe mode" } ": no rollback happens by itself." } }
            @if blocking.is_none() && status.hold.is_none() && status.mode != "observe" {
                li { "No guard blocks a rollback." }
            }
            @if !status.quarantine.is_empty() {
                li {
                    "In quarantine after a rollback, a deploy needs --allow-quarantined: "
                    @for (index, release) in quarantine.enumerate() {
                        @if index > 0 { ", " } (plain(release))
                    }
                    @if more > 0 { " and " (more) " more" }
                }
            }
        }
    }
}

fn deploys(service: &ServiceSnapshot) -> Markup {
    html! {
        h2 { "Last deploys" }
        @if service.deploys.is_empty() { p.empty { "None yet." } } @else {
            div.scroll tabindex="0" role="region" aria-label="Last deploys" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Deploy" } th scope="col" { "Began (UTC)" } th scope="col" { "Ended" }
                            th scope="col" { "After" } th scope="col" { "Why" }
                        }
                    }
                    tbody {
                        @for deploy in service.deploys.iter().map(DeployHistory::row) {
                            tr {
                                th scope="row" {
                                    a href={ (service.name) "/deploy/" (deploy.deploy) } {
                                        (deploy.deploy) " "
                                        (plain(&deploy.version))
                                    }
                                }
                                td { time datetime=(plain(&deploy.at)) { (date_time(&deploy.at)) } }
                                td { (deploy.outcome.label()) }
                                td { @if deploy.duration_ms > 0 { (milliseconds(deploy.duration_ms)) } }
                                td { (plain(&deploy.because)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
