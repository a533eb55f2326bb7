//! Gathers the facts of an incident from the files of its service. It blocks on the disk.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{ProbeKind, Service, SessionState};
use crate::incident::{FACTS_SCHEMA, Facts, Opening, Traffic, evidence};
use crate::model::{Moment, ReleaseNumber, TimelineEvent};
use crate::record::{self, SignalLog};

/// The facts of a deploy. What cannot be read is left out: a draft with gaps beats none.
pub(super) fn gather(dir: &Path, deploy: ReleaseNumber, service: Option<&Service>) -> Facts {
    let mut facts = Facts { schema: FACTS_SCHEMA, ..Facts::default() };
    match record::read_deploy(dir, Some(deploy)) {
        Ok(entries) => facts.set_timeline(entries),
        Err(error) => tracing::warn!("a draft without its timeline: {}", error.with_cause()),
    }
    facts.settings = service.map(settings).unwrap_or_default();
    if let Some(log) = signal_log(dir, deploy) {
        let opened = log.header.opened;
        facts.traffic = Some(Traffic::collect(opened, log.last_moment(), log.signals()));
        if let Some(service) = service {
            facts.evidence = Some(track(&facts, &log, service));
        }
    }
    facts
}

fn signal_log(dir: &Path, deploy: ReleaseNumber) -> Option<SignalLog> {
    let logs = record::list_signal_logs(dir).ok()?;
    let (_, path) = logs.into_iter().find(|(number, _)| *number == deploy)?;
    match record::read_signal_log(&path) {
        Ok(log) => Some(log),
        Err(error) => {
            tracing::warn!("a draft without its traffic: {error}");
            None
        }
    }
}

fn track(facts: &Facts, log: &SignalLog, service: &Service) -> evidence::EvidenceTrack {
    let header = log.header.clone();
    let decided = facts.find(|event| {
        matches!(event, TimelineEvent::Detected { .. } | TimelineEvent::Blocked { .. })
    });
    let until = decided.map_or(Moment(u64::MAX), |entry| entry.moment);
    let opening = Opening {
        release: header.release,
        warm: header.warm,
        opened: header.opened,
        history: header.history,
    };
    evidence::track(opening, service.slo.clone(), until, log.signals())
}

/// The settings that the rules of the document are about, as the configuration writes them.
pub(super) fn settings(service: &Service) -> BTreeMap<String, String> {
    let kind = match service.probe.kind {
        ProbeKind::Mcp => "mcp",
        ProbeKind::Http { .. } => "http",
        ProbeKind::Tcp => "tcp",
        ProbeKind::Command(_) => "command",
    };
    let state = match service.session_state {
        SessionState::None => "none",
        SessionState::Soft => "soft",
        SessionState::Hard => "hard",
    };
    let seconds = |time: std::time::Duration| match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    };
    let budget = service.slo.objectives.first().map_or(0.0, |it| it.error_budget);
    [
        ("probe.kind", kind.to_owned()),
        ("session_state", state.to_owned()),
        ("drain_timeout", seconds(service.policy.drain_timeout)),
        ("burst", seconds(service.slo.burst)),
        ("bake", seconds(service.policy.bake)),
        ("objective", format!("{}%", ((1.0 - budget) * 1e6).round() / 1e4)),
        ("max_false_rollback", service.slo.max_false_rollback.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
