//! Gathers the facts of an incident from the files of its service. It blocks on the disk.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{SETTING_NAMES, Service, setting_value};
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

/// The settings of a service that decide, as the configuration writes them.
pub(super) fn settings(service: &Service) -> BTreeMap<String, String> {
    let value = |name: &str| Some((name.to_owned(), setting_value(service, name)?));
    SETTING_NAMES.into_iter().filter_map(value).collect()
}
