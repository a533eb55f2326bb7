//! Keeps what would be lost, when an incident opens: error answers, output, changes.

use std::path::Path;

use crate::config::{Runtime, UnitTemplate};
use crate::daemon::incidents::Incidents;
use crate::incident::text::{clean_call, clean_text};
use crate::incident::{Change, Facts, FailureSample, OutputGroup, group_output};
use crate::model::{FailedCall, Moment, Release, ReleaseNumber};
use crate::record;
use crate::service::handle::ServiceHandle;
use crate::systemd::read_journal;

/// Error answers that are kept.
const SAMPLES_MAX: usize = 24;
/// Characters of an error message.
const MESSAGE_MAX: usize = 240;
/// The journal's clock and the daemon's may differ by this.
const CLOCK_TOLERANCE_S: u64 = 2;

/// The releases of a deploy, and when each was deployed.
struct Releases {
    trial: (Release, Moment),
    previous: Option<(Release, Option<Moment>)>,
}

impl Incidents {
    /// The error answers that the proxy has, of all releases.
    pub(super) fn failed_calls(&self, name: &str) -> Vec<(ReleaseNumber, FailedCall)> {
        self.0.proxies.get(name).map(|proxy| proxy.failed_calls()).unwrap_or_default()
    }

    /// Keeps the error answers, what the releases printed and what the deploy changed, with the facts of
    /// an incident.
    pub(super) async fn capture(
        &self,
        name: &str,
        handle: &ServiceHandle,
        deploy: ReleaseNumber,
        failed: Vec<(ReleaseNumber, FailedCall)>,
    ) {
        let dir = handle.dir().to_owned();
        let releases = tokio::task::spawn_blocking(move || releases_of(&dir, deploy)).await;
        let (mut changes, mut output) = (Vec::new(), Ok(Vec::new()));
        if let (Ok(Some(releases)), Some(service)) = (releases, self.service_settings(name)) {
            let previous = releases.previous.as_ref().map(|(it, _)| it);
            let changed = self.changes(name, &releases.trial.0, previous);
            let read = read_output(&service.runtime, handle.dir(), &releases);
            (changes, output) = tokio::join!(changed, read);
        }
        let samples = samples(failed, deploy);
        let Some(incidents) = self.service(name) else { return };
        let written = tokio::task::block_in_place(|| {
            let mut facts = incidents.store.read_facts(deploy)?.unwrap_or_default();
            merge(&mut facts, samples, output, changes);
            incidents.store.write_facts(deploy, &facts)
        });
        if let Err(error) = written {
            tracing::error!(service = name, "cannot write the facts of {deploy}: {error}");
        }
    }
}

/// Adds what was kept now. Newer output replaces older; samples are added to those of before.
fn merge(
    facts: &mut Facts,
    samples: Vec<FailureSample>,
    output: Result<Vec<OutputGroup>, &'static str>,
    changes: Vec<Change>,
) {
    for sample in samples {
        if facts.samples.len() < SAMPLES_MAX && !facts.samples.contains(&sample) {
            facts.samples.push(sample);
        }
    }
    match output {
        Ok(output) if output.is_empty() => (),
        Ok(output) => (facts.output, facts.output_unknown) = (output, None),
        Err(why) if facts.output.is_empty() => facts.output_unknown = Some(why.to_owned()),
        Err(_) => (),
    }
    if !changes.is_empty() {
        facts.changes = changes;
    }
}

/// The error answers as a document shows them: masked, those of the new release first.
fn samples(failed: Vec<(ReleaseNumber, FailedCall)>, deploy: ReleaseNumber) -> Vec<FailureSample> {
    let mut samples: Vec<FailureSample> = Vec::new();
    let (new, other): (Vec<_>, Vec<_>) = failed.into_iter().partition(|(it, _)| *it == deploy);
    for (release, it) in new.into_iter().chain(other) {
        let call = clean_call(&it.method, &it.name);
        let message = clean_text(&it.message, MESSAGE_MAX);
        let sample = FailureSample { release, call, code: it.code, message };
        if !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    samples.truncate(SAMPLES_MAX);
    samples
}

fn releases_of(dir: &Path, deploy: ReleaseNumber) -> Option<Releases> {
    let began = |number| {
        let entries = record::read_deploy(dir, Some(number)).ok()?;
        let first = entries.first()?.moment;
        Some((entries, first))
    };
    let (entries, first) = began(deploy)?;
    let mut facts = Facts::default();
    facts.set_timeline(entries);
    let previous = facts.previous_release().cloned();
    let previous = previous.map(|it| {
        let deployed = began(it.number).map(|(_, at)| at);
        (it, deployed)
    });
    Some(Releases { trial: (facts.release()?.clone(), first), previous })
}

/// The output of the new release in groups, or why it is not known.
async fn read_output(
    runtime: &Runtime,
    dir: &Path,
    releases: &Releases,
) -> Result<Vec<OutputGroup>, &'static str> {
    let (lines, known) = match runtime {
        Runtime::External => return Err("the daemon did not start the release"),
        Runtime::Command(_) => read_files(dir, releases).await,
        Runtime::Systemd(template) => read_journals(template, releases).await,
    };
    let lines = lines.ok_or(match runtime {
        Runtime::Systemd(_) => {
            "the journal of the unit cannot be read; a drop-in with              SupplementaryGroups=systemd-journal lets the daemon, see rollbackd-incidents(7)"
        }
        _ => "the output file has no part of it, or cannot be read",
    })?;
    // Nothing is known of a release without a line: nothing counts as new beside it.
    let known = known.filter(|it| !it.is_empty());
    let group = move || {
        let lines = lines.iter().map(String::as_str);
        match &known {
            Some(known) => group_output(lines, Some(&mut known.iter().map(String::as_str))),
            None => group_output(lines, None),
        }
    };
    Ok(tokio::task::spawn_blocking(group).await.unwrap_or_default())
}

/// The lines of the new and of the previous release.
type Lines = (Option<Vec<String>>, Option<Vec<String>>);

async fn read_files(dir: &Path, releases: &Releases) -> Lines {
    let (dir, trial) = (dir.to_owned(), releases.trial.0.clone());
    let previous = releases.previous.as_ref().map(|(it, _)| it.clone());
    let read = tokio::task::spawn_blocking(move || {
        let previous = previous.and_then(|it| record::read_output_section(&dir, &it));
        (record::read_output_section(&dir, &trial), previous)
    });
    read.await.unwrap_or_default()
}

async fn read_journals(template: &UnitTemplate, releases: &Releases) -> Lines {
    let (trial, began) = &releases.trial;
    let seconds = |at: Moment| at.0 / 1_000;
    let since = |at: Moment| seconds(at).saturating_sub(CLOCK_TOLERANCE_S);
    let unit = template.unit_of(&trial.slot);
    let lines = read_unit(&unit, Some(since(*began)), None);
    let known = async {
        let (previous, deployed) = releases.previous.as_ref()?;
        // A slot that both used has the output of both: only what is older counts.
        let until = (previous.slot == trial.slot).then(|| seconds(*began));
        read_unit(&template.unit_of(&previous.slot), deployed.map(since), until).await
    };
    let (lines, known) = tokio::join!(lines, known);
    // systemd writes a line of each start: a journal that is empty is one that the daemon cannot read.
    (lines.filter(|it| !it.is_empty()), known)
}

async fn read_unit(unit: &str, since: Option<u64>, until: Option<u64>) -> Option<Vec<String>> {
    match read_journal(unit, since, until).await {
        Ok(lines) => Some(lines),
        Err(error) => {
            tracing::warn!("a draft without the output of {unit}: journalctl: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seeded_secret_is_in_a_sample() {
        let seeded = include_str!("../../incident/secrets.txt").lines();
        let seeded = seeded.filter_map(|it| it.split_once(" :: "));
        let mut count = 0;
        for (secret, text) in seeded.filter(|(secret, _)| !secret.starts_with('#')) {
            let call = FailedCall { message: text.into(), name: text.into(), ..Default::default() };
            let shown = samples(vec![(ReleaseNumber(2), call)], ReleaseNumber(2));
            let shown = serde_json::to_string(&shown).unwrap();
            assert!(!shown.contains(secret), "{text} -> {shown}");
            count += 1;
        }
        assert!(count >= 50, "{count} secrets");
    }

    #[test]
    fn samples_are_masked_and_each_is_shown_once() {
        let call = |message: &str| FailedCall {
            method: "tools/call".into(),
            name: "fore\u{1b}cast".into(),
            code: Some(-32603),
            message: message.into(),
        };
        let failed = vec![
            (ReleaseNumber(1), call("old")),
            (ReleaseNumber(2), call("token=abcdefgh1234 is bad")),
            (ReleaseNumber(2), call("token=abcdefgh1234 is bad")),
        ];
        let samples = samples(failed, ReleaseNumber(2));
        let shown: Vec<_> = samples.iter().map(|it| (it.release.0, it.message.as_str())).collect();
        assert_eq!(shown, [(2, "token=[masked] is bad"), (1, "old")]);
        assert_eq!(samples[0].call, "tools/call forecast");
    }
}
