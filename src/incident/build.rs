//! Incident, facts and texts of people -> the document model.

use crate::incident::cause::Cause;
use crate::incident::document::{CallFailure, ErrorRate, PostMortem, SCHEMA};
use crate::incident::factor::{Context, factors};
use crate::incident::facts::{Change, Facts, FailureSample};
use crate::incident::human::HumanParts;
use crate::incident::hypothesis::hypotheses;
use crate::incident::impact::{drain_cost, impact};
use crate::incident::life::Incident;
use crate::incident::phrases;
use crate::incident::rows;
use crate::incident::signature::Signature;
use crate::incident::text::{clean_name, clean_text};
use crate::incident::traffic::bad;
use crate::incident::utc::format_ms;
use crate::model::{TimelineEvent, Verdict};

/// What is said about a fact until the facts are gathered.
const NOT_GATHERED: &str = "not known yet: the facts are being gathered";
/// Calls that a document lists.
const FAILURES_MAX: usize = 10;
/// Error answers that it shows of one call.
const SAMPLES_OF_CALL_MAX: usize = 3;
/// A release serves well that fails at most one in so many requests.
const FEW_FAILED: u64 = 20;
/// Error answers that it shows.
const SAMPLES_MAX: usize = 9;

/// Makes the document.
pub fn build(
    incident: &Incident,
    facts: &Facts,
    human: HumanParts,
    open_actions: &[(String, String)],
) -> PostMortem {
    let mut facts = facts.clone();
    // It is about the bake, in which the release was fine; or it lacks what the verdict is about.
    let ends_early = facts.record_ends_early();
    if facts.verdict_after_bake().is_some() || ends_early {
        facts.traffic = None;
    }
    let facts = &facts;
    let impact = impact(facts);
    let context = Context { facts, incident, open_actions };
    let factors = factors(&context);
    let mut suggested: Vec<_> = factors.iter().filter_map(|it| it.action.clone()).collect();
    let hypotheses = hypotheses(facts);
    suggested.extend(hypotheses.first().and_then(|it| it.action.clone()));
    PostMortem {
        schema: SCHEMA.to_owned(),
        service: incident.service.clone(),
        incident: incident.number,
        version: incident.version.clone(),
        previous: facts.previous_release().map(|it| it.version.clone()),
        state: incident.state.label().to_owned(),
        title: phrases::title(facts, incident),
        headline: phrases::headline(facts, incident, &impact),
        summary: phrases::summary(facts, incident, &impact),
        timeline: rows::rows(facts, incident),
        nearby: facts.nearby.clone(),
        durations: rows::durations(facts),
        failures: failures(facts),
        failures_unknown: failures_unknown(facts, ends_early),
        samples: samples(facts),
        changes: changes(facts),
        output: facts.output.clone(),
        output_unknown: match facts.is_gathered() {
            true => facts.output_unknown.clone(),
            false => Some(NOT_GATHERED.to_owned()),
        },
        evidence_text: match facts.is_gathered() {
            true => rows::verdict_of(facts).map(evidence_text).unwrap_or_default(),
            false => NOT_GATHERED.to_owned(),
        },
        evidence: facts.evidence.clone(),
        error_rate: error_rate(facts),
        hypotheses,
        factors,
        remediation: remediation(facts, incident),
        went_well: went_well(facts),
        went_badly: went_badly(facts, incident),
        actions: incident.actions.clone(),
        suggested_actions: suggested,
        recurrence_of: incident.recurrence_of.clone(),
        missing: missing(incident, &human),
        human_digest: human.digest(),
        human,
        impact,
    }
}

/// What is still missing before the review can be closed.
pub fn missing(incident: &Incident, human: &HumanParts) -> Vec<String> {
    let mut missing = Vec::new();
    for (part, what) in [
        ("root_cause", "the root cause"),
        ("factors", "one contributing factor"),
        ("remediation", "the remediation"),
    ] {
        if human.get(part).trim().is_empty() {
            missing.push(what.to_owned());
        }
    }
    if !incident.actions.iter().any(|it| !it.owner.is_empty() && !it.due.is_empty()) {
        missing.push("one action item with an owner and a due date".to_owned());
    }
    missing
}

/// What identifies a repetition of this incident.
pub fn signature(facts: &Facts, cause: Cause) -> Signature {
    let Some(trial) = facts.trial() else {
        let output = facts.new_error().map(|it| it.template.clone());
        let fault = cause.label().to_owned();
        return Signature { fault, output: output.unwrap_or_default(), ..Signature::default() };
    };
    let worst = trial.calls.first().filter(|it| bad(&it.counts) + it.counts.client_fault > 0);
    let counts = worst.map_or(trial.counts, |it| it.counts);
    let kinds = [
        ("server fault", counts.server_fault),
        ("tool fault", counts.tool_fault),
        ("rejected calls", counts.client_fault),
        ("slow", counts.slow),
    ];
    let kind = kinds.into_iter().max_by_key(|(_, count)| *count);
    let fault = match kind {
        _ if trial.exits.0 > 0 => "exits",
        Some((kind, 1..)) => kind,
        _ => cause.label(),
    };
    let call = worst.map(|it| it.call.clone()).unwrap_or_default();
    let sample = facts.sample(Some(&call));
    let output = facts.new_error();
    Signature {
        fault: fault.to_owned(),
        code: sample.and_then(|it| it.code),
        output: output.map(|it| it.template.clone()).unwrap_or_default(),
        call,
    }
}

/// Why no call is listed, where that does not mean that none failed.
fn failures_unknown(facts: &Facts, ends_early: bool) -> Option<String> {
    let why = match (facts.is_gathered(), facts.verdict_after_bake()) {
        (false, _) => NOT_GATHERED,
        _ if ends_early => {
            "not recorded: the record of the bake ends before the verdict; the log says why"
        }
        (true, Some(_)) => "not recorded: signals are recorded during a bake, and it was over",
        (true, None) => return None,
    };
    Some(why.to_owned())
}

fn failures(facts: &Facts) -> Vec<CallFailure> {
    let Some(trial) = facts.trial() else { return Vec::new() };
    let control = facts.control();
    trial
        .calls
        .iter()
        .filter(|it| bad(&it.counts) + it.counts.client_fault > 0)
        .take(FAILURES_MAX)
        .map(|it| CallFailure {
            call: it.call.clone(),
            server_faults: it.counts.server_fault,
            tool_faults: it.counts.tool_fault,
            client_faults: it.counts.client_fault,
            requests: it.counts.total(),
            control: control
                .and_then(|control| control.calls.iter().find(|other| other.call == it.call))
                .map(|other| (bad(&other.counts), other.counts.total())),
        })
        .collect()
}

/// Error answers of the new release: those of the call that failed most often come first.
fn samples(facts: &Facts) -> Vec<FailureSample> {
    let Some(release) = facts.release() else { return Vec::new() };
    let calls = facts.trial().map(|it| it.calls.as_slice()).unwrap_or_default();
    let place = |it: &FailureSample| calls.iter().position(|call| call.call == it.call);
    let mut samples: Vec<FailureSample> = Vec::new();
    for sample in facts.samples.iter().filter(|it| it.release == release.number) {
        let of_call = samples.iter().filter(|it| it.call == sample.call).count();
        if of_call < SAMPLES_OF_CALL_MAX {
            samples.push(sample.clone());
        }
    }
    samples.sort_by_key(|it| place(it).unwrap_or(usize::MAX));
    samples.truncate(SAMPLES_MAX);
    samples
}

fn changes(facts: &Facts) -> Vec<Change> {
    let mut changes = Vec::new();
    let change = |kind: &str, text: String| Change { kind: kind.to_owned(), text };
    if !facts.is_gathered() && facts.changes.is_empty() {
        changes.push(change("contract", NOT_GATHERED.to_owned()));
    }
    if let (Some(new), Some(old)) = (facts.release(), facts.previous_release()) {
        let artifact = |it: &Option<String>| it.as_deref().map_or("none".to_owned(), clean_name);
        if new.artifact != old.artifact {
            let (old, new) = (artifact(&old.artifact), artifact(&new.artifact));
            changes.push(change("artifact", format!("{old} -> {new}")));
        }
        let keys: std::collections::BTreeSet<_> =
            old.environment.keys().chain(new.environment.keys()).collect();
        for key in keys {
            // Values can be secrets; their names are enough.
            let what = match (old.environment.get(key), new.environment.get(key)) {
                (None, Some(_)) => "added",
                (Some(_), None) => "removed",
                (old, new) if old != new => "changed",
                _ => continue,
            };
            changes.push(change("setting", format!("{} {what}", clean_name(key))));
        }
    }
    for entry in &facts.timeline {
        if let TimelineEvent::Ready { changes: Some(diff), .. } = &entry.event {
            let text = diff.to_string();
            let text = text.trim_start_matches([':', ';', ',', ' ']);
            if !diff.is_unchanged() && !text.is_empty() {
                changes.push(change("contract", clean_text(text, 500)));
            }
        }
    }
    changes.extend(facts.changes.iter().cloned());
    changes
}

fn error_rate(facts: &Facts) -> ErrorRate {
    let Some(traffic) = &facts.traffic else { return ErrorRate::default() };
    let series = |it: Option<&crate::incident::traffic::ReleaseTraffic>| {
        it.map(|it| it.series.clone()).unwrap_or_default()
    };
    let mut marks: Vec<_> = facts
        .timeline
        .iter()
        .filter_map(|entry| {
            let name = match entry.event {
                TimelineEvent::Detected { .. } => "detected",
                TimelineEvent::Blocked { .. } => "blocked",
                TimelineEvent::Drained { .. } => "drained",
                TimelineEvent::Cut { .. } => "cut",
                TimelineEvent::Recovered => "recovered",
                _ => return None,
            };
            let at = entry.moment.0.checked_sub(traffic.opened.0)?;
            Some((name.to_owned(), at))
        })
        .collect();
    if let Some(verdict) = rows::verdict_of(facts) {
        marks.extend(
            verdict.onset.0.checked_sub(traffic.opened.0).map(|at| ("onset".to_owned(), at)),
        );
    }
    ErrorRate { trial: series(facts.trial()), control: series(facts.control()), marks }
}

/// What was found, and the rule that decided.
fn evidence_text(verdict: &Verdict) -> String {
    let basis = verdict.basis.as_ref().map(|basis| format!(" (rule: {basis})")).unwrap_or_default();
    clean_text(&format!("{}{basis}", verdict.because), 500)
}

fn remediation(facts: &Facts, incident: &Incident) -> Vec<String> {
    let mut done = Vec::new();
    for entry in &facts.timeline {
        let by = match &entry.event {
            TimelineEvent::Decided { ordered: true, .. } => "an operator decided",
            TimelineEvent::Decided { .. } => "the daemon decided",
            TimelineEvent::Recovered => "recovered",
            TimelineEvent::Unrecovered => "not recovered",
            TimelineEvent::Abandoned => "abandoned",
            TimelineEvent::Held { .. } => "held",
            _ => continue,
        };
        let at = format_ms(entry.since_deploy_ms);
        done.push(format!("{at} after the deploy, {by}: {}", clean_text(&entry.because, 240)));
    }
    if let Some(cost) = drain_cost(facts) {
        done.push(format!("the rollback itself cost: {cost}"));
    }
    // One that could not take place leaves nothing in quarantine.
    if facts.is_rollback() {
        let Incident { service, version, .. } = incident;
        done.push(format!(
            "left: {version} is quarantined; `rollbackd deploy {service} {version} \
             --allow-quarantined` overrides it"
        ));
    }
    done
}

fn went_well(facts: &Facts) -> Vec<String> {
    let mut well = Vec::new();
    // What waited for a person is no success.
    let held = facts.reaction().is_some_and(|(_, rollback)| rollback.is_some());
    if let Some(ms) = phrases::switch_ms(facts).filter(|_| !held) {
        let is_order = facts.find(
            |it| matches!(it, TimelineEvent::Detected { trigger, .. } if trigger.is_operator()),
        );
        let after = if is_order.is_some() { "order" } else { "verdict" };
        well.push(format!("the traffic was back {} after the {after}", format_ms(ms)));
    }
    if drain_cost(facts).is_some_and(|cost| cost.sessions_ended == 0) {
        well.push("no session ended".to_owned());
    }
    if let Some(control) = facts.control().filter(|it| it.counts.judged() > 0) {
        let (failed, judged) = (bad(&control.counts), control.counts.judged());
        if failed * FEW_FAILED <= judged {
            let text =
                format!("the previous release failed {failed} of {judged} requests meanwhile");
            well.push(text);
        }
    }
    well
}

fn went_badly(facts: &Facts, incident: &Incident) -> Vec<String> {
    let mut badly = Vec::new();
    if let Some((found, Some(rollback))) = facts.reaction() {
        let ms = rollback.moment.0.saturating_sub(found.moment.0);
        badly.push(format!("the rollback began {} after the verdict", format_ms(ms)));
    }
    if let Some((cause, ..)) = incident.causes.iter().rev().find(|(it, ..)| it.needs_person()) {
        badly.push(format!("{}: a person was needed", cause.label()));
    }
    if let Some(earlier) = incident.recurrence_of.first() {
        badly.push(format!("it is the same as incident {earlier}"));
    }
    badly
}
