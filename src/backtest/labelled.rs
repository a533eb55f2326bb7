//! Finds the deploys whose post-mortem was closed with a verdict, and their recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::backtest::BacktestError;
use crate::backtest::location::{self, ReplayStart};
use crate::backtest::source::Source;
use crate::backtest::variants::Variants;
use crate::incident::{Cause, DeployOutcome, Facts, Incident, ReleaseLabel, cause_of, summarise};
use crate::model::{Moment, ReleaseNumber, TimelineEntry};
use crate::record;
use crate::record::IncidentStore;

/// Incidents of one service that are read, the newest.
const INCIDENTS_MAX: usize = 1_000;
/// Deploys that one comparison replays, the newest of each service first.
pub(crate) const DEPLOYS_MAX: usize = 200;
/// Characters of a version.
const VERSION_MAX: usize = 24;

/// A deploy with a label.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LabelledDeploy {
    pub(crate) service: String,
    pub(crate) number: ReleaseNumber,
    /// The version of the previous release; none for the first release, or where no record has it.
    pub(crate) from: Option<String>,
    /// The version of the release.
    pub(crate) to: String,
    pub(crate) label: ReleaseLabel,
    /// What the review said.
    pub(crate) review: String,
    pub(crate) past: PastVerdict,
    recording: PathBuf,
}

/// What the daemon decided about the release.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PastVerdict {
    /// How the deploy ended, in words.
    pub(crate) outcome: String,
    /// When the judge found a breach of the release, if it did.
    pub(crate) found_at: Option<Moment>,
}

/// What a service has.
#[derive(Debug, Default)]
pub(crate) struct LabelledDeploys {
    /// Deploys with a label and a recording, oldest first.
    pub(crate) deploys: Vec<LabelledDeploy>,
    /// What cannot be replayed, a sentence each.
    pub(crate) remarks: Vec<String>,
}

/// The labelled deploys of the named services; of all services without a name.
///
/// # Errors
/// No configuration, no such service, or a directory that cannot be read.
pub(crate) fn find(
    named: &[String],
    from: Option<ReplayStart>,
    variants: &Variants,
) -> Result<LabelledDeploys, BacktestError> {
    let mut services: BTreeSet<_> = named.iter().cloned().collect();
    if services.is_empty() {
        let settings = location::settings_of("labelled deploys", variants)?;
        services.extend(settings.services.keys().cloned());
    }
    let mut found = LabelledDeploys::default();
    for service in &services {
        let dir = location::service_dir(service, variants)?;
        let room = DEPLOYS_MAX.saturating_sub(found.deploys.len());
        let of_service = find_in(service, &dir, from, room).map_err(|error| {
            let dir = dir.display();
            BacktestError::Failed(format!(
                "cannot read {dir}: {error}; run this as root or as the user of the daemon"
            ))
        })?;
        found.deploys.extend(of_service.deploys);
        found.remarks.extend(of_service.remarks);
    }
    if found.deploys.is_empty() {
        let services: Vec<_> = services.into_iter().collect();
        found.remarks.push(format!(
            "no labelled deploy of {} can be replayed; `rollbackd postmortem close SERVICE N --verdict V` \
             labels one",
            services.join(", ")
        ));
    }
    Ok(found)
}

fn find_in(
    service: &str,
    dir: &Path,
    from: Option<ReplayStart>,
    room: usize,
) -> io::Result<LabelledDeploys> {
    let store = IncidentStore::new(dir);
    let recordings: BTreeMap<_, _> = match record::list_signal_logs(dir) {
        Ok(logs) => logs.into_iter().collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let (mut found, mut without, mut too_many) = (LabelledDeploys::default(), 0_u64, 0_u64);
    for number in store.list()?.into_iter().rev().take(INCIDENTS_MAX) {
        let incident = match store.restore(number) {
            Ok(incident) => incident,
            Err(error) => {
                found.remarks.push(format!("{service} deploy {number} is left out: {error}"));
                continue;
            }
        };
        let labelled = incident.and_then(|it| Some((it.label()?, it)));
        let Some((label, incident)) = labelled.filter(|(_, it)| is_from(it, from)) else {
            continue;
        };
        match recordings.get(&number) {
            None => without += 1,
            Some(_) if room <= found.deploys.len() => too_many += 1,
            Some(path) => {
                found.deploys.push(describe(service, dir, &store, (label, &incident), path))
            }
        }
    }
    found.deploys.reverse();
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    if without > 0 {
        found.remarks.push(format!(
            "{service}: {without} labelled deploy{} without a recording: it was removed, or the release met no \
             traffic",
            plural(without)
        ));
    }
    if too_many > 0 {
        found.remarks.push(format!(
            "{service}: {too_many} older labelled deploy{} left out: one run replays {DEPLOYS_MAX}; use --from",
            plural(too_many)
        ));
    }
    Ok(found)
}

fn is_from(incident: &Incident, from: Option<ReplayStart>) -> bool {
    match from {
        None => true,
        Some(ReplayStart::DeployOrSecond(first)) => first <= u64::from(incident.number.0),
        Some(ReplayStart::Date(day)) => day <= incident.opened,
    }
}

/// Takes what the timeline says; what it no longer says, the facts of the incident do.
fn describe(
    service: &str,
    dir: &Path,
    store: &IncidentStore,
    (label, incident): (ReleaseLabel, &Incident),
    recording: &Path,
) -> LabelledDeploy {
    let number = incident.number;
    let timeline = record::read_deploy(dir, Some(number)).unwrap_or_default();
    let facts = match timeline.is_empty() {
        false => Facts { timeline, ..Facts::default() },
        true => store.read_facts(number).ok().flatten().unwrap_or_default(),
    };
    let version = |version: &str| version.chars().take(VERSION_MAX).collect::<String>();
    LabelledDeploy {
        service: service.to_owned(),
        number,
        from: facts.previous_release().map(|it| version(&it.version)),
        to: version(&incident.version),
        label,
        review: incident.verdict.map(|it| it.to_string()).unwrap_or_default(),
        past: past_verdict(incident, &facts.timeline),
        recording: recording.to_owned(),
    }
}

/// The timeline may be gone, or damaged; the record of the incident has each cause and its time, too.
fn past_verdict(incident: &Incident, timeline: &[TimelineEntry]) -> PastVerdict {
    let is_verdict =
        |entry: &&TimelineEntry| cause_of(entry).is_some_and(Cause::is_verdict_against_release);
    let cause = incident.causes.iter().find(|(cause, ..)| cause.is_verdict_against_release());
    let in_timeline = timeline.iter().find(is_verdict).map(|entry| entry.moment);
    let outcome = summarise(timeline, 0).map(|it| it.row().outcome);
    let outcome = outcome.filter(|it| *it != DeployOutcome::Running);
    PastVerdict {
        outcome: outcome.map_or(incident.cause().label(), DeployOutcome::label).to_owned(),
        found_at: cause.map(|(_, recorded, _)| in_timeline.unwrap_or(*recorded)),
    }
}

impl LabelledDeploy {
    /// Reads its recording.
    ///
    /// # Errors
    /// The recording cannot be read, or is damaged before its end.
    pub(crate) fn load(&self) -> Result<Source, BacktestError> {
        let name = format!("{} deploy {}", self.service, self.number);
        let source = location::load_recording(name, &self.recording);
        source.map_err(BacktestError::Failed)
    }
}
