//! Gathers the facts of an incident from the files of its service. It blocks on the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::config::{SETTING_NAMES, Service, setting_value};
use crate::incident::{
    FACTS_SCHEMA, Facts, Opening, Traffic, evidence, nearby, nearby_window, reloads,
};
use crate::model::{Moment, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::record::{self, SignalLog};

/// Deploys of one service that can have events near the incident: the newest.
const DEPLOYS_READ_MAX: usize = 10;

/// The facts of a deploy. `all` has the directories of all services. What cannot be read is left out: a
/// draft with gaps beats none.
pub(super) fn gather(
    dir: &Path,
    deploy: ReleaseNumber,
    service: Option<&Service>,
    all: &[PathBuf],
) -> Facts {
    let mut facts = Facts { schema: FACTS_SCHEMA, ..Facts::default() };
    match record::read_deploy(dir, Some(deploy)) {
        Ok(entries) => facts.set_timeline(entries),
        Err(error) => tracing::warn!("a draft without its timeline: {}", error.with_cause()),
    }
    facts.settings = service.map(settings).unwrap_or_default();
    let others: Vec<_> = other_timelines(&facts, (dir, deploy), all).collect();
    facts.reloads = reloads(&facts, &others);
    facts.nearby = nearby(&facts, others);
    if let Some(log) = signal_log(dir, deploy) {
        let opened = log.header.opened;
        facts.traffic = Some(Traffic::collect(opened, log.last_moment(), || log.signals()));
        if let Some(service) = service {
            facts.evidence = Some(track(&facts, &log, service));
        }
    }
    facts
}

/// The entries of other deploys whose files were written since the beginning of what is near.
fn other_timelines<'a>(
    facts: &Facts,
    own: (&'a Path, ReleaseNumber),
    all: &'a [PathBuf],
) -> impl Iterator<Item = TimelineEntry> + use<'a> {
    let from = UNIX_EPOCH + Duration::from_millis(nearby_window(facts).0.0);
    let is_recent = move |path: &Path| {
        let written = std::fs::metadata(path).and_then(|it| it.modified());
        written.is_ok_and(|it| from <= it)
    };
    all.iter().flat_map(move |dir| {
        let deploys = record::list_deploys(dir).unwrap_or_default().into_iter().rev();
        let others = deploys.filter(move |(number, _)| (dir.as_path(), *number) != own);
        let recent = others.take(DEPLOYS_READ_MAX).filter(move |(_, path)| is_recent(path));
        recent.flat_map(|(number, _)| record::read_deploy(dir, Some(number)).unwrap_or_default())
    })
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
