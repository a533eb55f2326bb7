//! What a deploy changed: files of the artifact, what its image consists of, settings, the unit.

use std::io;
use std::path::Path;

use crate::artifact::{FileChange, Podman, compare};
use crate::config::Runtime;
use crate::daemon::incidents::image_changes::{image_changes, is_image};
use crate::daemon::incidents::{Incidents, gather};
use crate::incident::text::clean_text;
use crate::incident::{Change, DeployFacts};
use crate::model::{Release, ReleaseNumber};
use crate::systemd::read_unit_text;

/// Files that a document lists.
const FILES_LISTED: usize = 30;
/// Changes of one incident.
const CHANGES_MAX: usize = 100;
/// Characters of a change.
const TEXT_MAX: usize = 200;

impl Incidents {
    /// Keeps what a deploy runs with, beside the loop: a slow disk delays no notification.
    pub(super) fn keep_deploy_facts(
        &self,
        name: &str,
        release: &Release,
        previous: Option<&Release>,
    ) {
        let Some(service) = self.service_settings(name) else { return };
        let (this, name, release) = (self.clone(), name.to_owned(), release.clone());
        let previous = previous.and_then(|it| it.artifact.clone());
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
            let mut facts = DeployFacts { settings, ..DeployFacts::default() };
            if let Runtime::Systemd(template) = &service.runtime {
                match read_unit_text(&template.unit_of(&release.slot)).await {
                    Ok(text) if !text.is_empty() => facts.set_unit(&text),
                    Ok(_) => (),
                    Err(error) => tracing::debug!("cannot read the unit of {release}: {error}"),
                }
            }
            this.write_deploy_facts(&name, &release, &facts);
            // Last: podman may take its time.
            let images = previous.as_deref().zip(release.artifact.as_deref());
            if let Some((old, new)) = images.filter(|(old, new)| old != new) {
                facts.image = this.image_changes(old, new).await;
                if facts.image.is_some() {
                    this.write_deploy_facts(&name, &release, &facts);
                }
            }
        });
    }

    fn write_deploy_facts(&self, name: &str, release: &Release, facts: &DeployFacts) {
        let Some(incidents) = self.service(name) else { return };
        let write = || incidents.store.write_deploy_facts(release.number, facts);
        if let Err(error) = tokio::task::block_in_place(write) {
            tracing::warn!(service = name, "cannot keep the settings of {release}: {error}");
        }
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
        if let (Some(before), Some(after)) = (&old.artifact, &new.artifact)
            && before != after
        {
            // The image of the previous release may be gone by now.
            let kept = self.deploy_facts(name, new.number).ok().flatten().and_then(|it| it.image);
            changes.extend(match kept {
                Some(kept) => kept,
                None => self.artifact_changes(before, after).await,
            });
        }
        changes.extend(self.setting_changes(name, new.number, old.number));
        changes.truncate(CHANGES_MAX);
        changes
    }

    async fn artifact_changes(&self, old: &str, new: &str) -> Vec<Change> {
        let is_path = |it: &str| it.starts_with('/');
        if !is_path(old) || !is_path(new) {
            return self.image_changes(old, new).await.unwrap_or_default();
        }
        match compare(Path::new(old), Path::new(new)).await {
            Ok(files) => file_changes(&files),
            Err(error) => {
                tracing::warn!("a draft without the changed files: {error}");
                Vec::new()
            }
        }
    }

    /// How two images differ; none where one of them is no image, or podman cannot tell.
    async fn image_changes(&self, old: &str, new: &str) -> Option<Vec<Change>> {
        if !is_image(old) || !is_image(new) {
            return None;
        }
        let compared = match Podman::new(&self.settings().podman) {
            Ok(podman) => image_changes(&podman, old, new).await,
            Err(error) => Err(error),
        };
        compared.inspect_err(|error| tracing::debug!("cannot compare two images: {error}")).ok()
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
