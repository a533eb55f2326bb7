//! What a deploy changed: files of the artifact, labels of the image, settings, the unit.

use std::io;
use std::path::Path;

use crate::artifact::{FileChange, Podman, compare};
use crate::config::Runtime;
use crate::daemon::incidents::{Incidents, gather};
use crate::incident::text::{clean_name, clean_text};
use crate::incident::{Change, DeployFacts};
use crate::model::{Release, ReleaseNumber};
use crate::systemd::read_unit_text;

/// Files that a document lists.
const FILES_LISTED: usize = 30;
/// Changes of one incident.
const CHANGES_MAX: usize = 100;
/// Characters of a change.
const TEXT_MAX: usize = 200;
/// The labels that the OCI defines; others can be anything.
const LABELS: &str = "org.opencontainers.image.";

impl Incidents {
    /// Keeps what a deploy runs with, beside the loop: a slow disk delays no notification.
    pub(super) fn keep_deploy_facts(&self, name: &str, release: &Release) {
        let Some(service) = self.service_settings(name) else { return };
        let (this, name, release) = (self.clone(), name.to_owned(), release.clone());
        tokio::spawn(async move {
            // A timeline that is read again after a restart must not replace what the deploy had.
            match this.deploy_facts(&name, release.number) {
                Ok(None) => (),
                Ok(Some(_)) => return,
                Err(error) => {
                    tracing::warn!(
                        service = name,
                        "cannot read the settings of {release}: {error}"
                    );
                    return;
                }
            }
            let settings = gather::settings(&service);
            let mut facts = DeployFacts { settings, unit: None };
            if let Runtime::Systemd(template) = &service.runtime {
                match read_unit_text(&template.unit_of(&release.slot)).await {
                    Ok(text) if !text.is_empty() => facts.set_unit(&text),
                    Ok(_) => (),
                    Err(error) => tracing::debug!("cannot read the unit of {release}: {error}"),
                }
            }
            let Some(incidents) = this.service(&name) else { return };
            let write = || incidents.store.write_deploy_facts(release.number, &facts);
            if let Err(error) = tokio::task::block_in_place(write) {
                tracing::warn!(service = name, "cannot keep the settings of {release}: {error}");
            }
        });
    }

    fn deploy_facts(&self, name: &str, deploy: ReleaseNumber) -> io::Result<Option<DeployFacts>> {
        let Some(incidents) = self.service(name) else { return Ok(None) };
        tokio::task::block_in_place(|| incidents.store.read_deploy_facts(deploy))
    }

    /// What is different from the previous release.
    pub(super) async fn changes(
        &self,
        name: &str,
        new: &Release,
        old: Option<&Release>,
    ) -> Vec<Change> {
        let Some(old) = old else { return Vec::new() };
        let mut changes = Vec::new();
        if let (Some(old), Some(new)) = (&old.artifact, &new.artifact)
            && old != new
        {
            changes.extend(self.artifact_changes(old, new).await);
        }
        changes.extend(self.setting_changes(name, new.number, old.number));
        changes.truncate(CHANGES_MAX);
        changes
    }

    async fn artifact_changes(&self, old: &str, new: &str) -> Vec<Change> {
        let is_path = |it: &str| it.starts_with('/');
        if is_path(old) && is_path(new) {
            return match compare(Path::new(old), Path::new(new)).await {
                Ok(files) => file_changes(&files),
                Err(error) => {
                    tracing::warn!("a draft without the changed files: {error}");
                    Vec::new()
                }
            };
        }
        let is_image = |it: &str| it.contains("@sha256:");
        match Podman::new(&self.settings().podman) {
            Ok(podman) if is_image(old) && is_image(new) => label_changes(&podman, old, new).await,
            _ => Vec::new(),
        }
    }

    fn setting_changes(&self, name: &str, new: ReleaseNumber, old: ReleaseNumber) -> Vec<Change> {
        let read = self.deploy_facts(name, new);
        let read = read.and_then(|new| Ok((new, self.deploy_facts(name, old)?)));
        match read {
            Ok((Some(new), Some(old))) => new.changes_since(&old),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::warn!(service = name, "a draft without the changed settings: {error}");
                Vec::new()
            }
        }
    }
}

fn file_changes(files: &[FileChange]) -> Vec<Change> {
    let change = |text: String| Change { kind: "artifact".to_owned(), text };
    let listed = files.iter().take(FILES_LISTED).map(|it| {
        let path = if it.path.is_empty() { "the file" } else { it.path.as_str() };
        let text = match (it.old_bytes, it.new_bytes) {
            (Some(old), Some(new)) => format!("{path} changed ({old} -> {new} bytes)"),
            (None, Some(new)) => format!("{path} added ({new} bytes)"),
            (Some(old), None) => format!("{path} removed ({old} bytes)"),
            (None, None) => path.to_owned(),
        };
        change(clean_text(&text, TEXT_MAX))
    });
    let mut changes: Vec<_> = listed.collect();
    let surplus = files.len().saturating_sub(FILES_LISTED);
    if surplus > 0 {
        changes.push(change(format!("{surplus} more files differ")));
    }
    changes
}

async fn label_changes(podman: &Podman, old: &str, new: &str) -> Vec<Change> {
    let (Ok(old), Ok(new)) = tokio::join!(podman.labels(old), podman.labels(new)) else {
        return Vec::new();
    };
    let names: std::collections::BTreeSet<_> =
        old.keys().chain(new.keys()).filter(|it| it.starts_with(LABELS)).collect();
    let mut changes = Vec::new();
    for name in names {
        // A revision looks like a secret, and is none: it is not masked.
        let value = |it: Option<&String>| it.map_or("unset".to_owned(), |it| clean_name(it));
        let (before, after) = (value(old.get(name)), value(new.get(name)));
        if before != after {
            let text = format!("{}: {before} -> {after}", clean_name(name));
            changes.push(Change { kind: "label".to_owned(), text });
        }
    }
    changes
}
