//! The artifacts of the releases that are needed: sealed at their deploy, and looked at again.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::mpsc;

use crate::artifact::{Doubt, Podman, Seal};
use crate::config::Service;
use crate::model::{Number, Release};

use super::input::Input;
use super::keeper::Keeper;

/// The seals of one service's releases.
#[derive(Debug)]
pub(super) struct Seals {
    pub(super) podman: Option<Podman>,
    all: BTreeMap<Number, Seal>,
}

impl Seals {
    /// None yet; `podman` is the socket that is asked of images.
    pub(super) fn new(podman: &Path) -> Self {
        let podman = Podman::new(podman).inspect_err(|why| tracing::warn!("no podman: {why}"));
        Self { podman: podman.ok(), all: BTreeMap::new() }
    }

    /// The seal of a release, if its artifact has a digest.
    pub(super) fn of(&mut self, release: &Release) -> Option<Seal> {
        if let Some(seal) = self.all.get(&release.number) {
            return Some(seal.clone());
        }
        let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?);
        // One that a daemon of another version wrote is not known here, and not checked.
        let seal = Seal::new(artifact, digest.parse().ok()?, self.podman.clone());
        self.all.insert(release.number, seal.clone());
        Some(seal)
    }

    /// Takes the seal that was made at a deploy.
    pub(super) fn keep(&mut self, number: Number, seal: Seal) {
        self.all.insert(number, seal);
    }

    pub(super) fn forget(&mut self, number: Number) {
        self.all.remove(&number);
    }

    /// Keeps the image of a new release from being pruned, and lets those of old ones go.
    pub(super) fn pin(&self, service: &Service, release: &Release, needed: Vec<Number>) {
        let Some((podman, artifact)) = self.podman.clone().zip(release.artifact.clone()) else {
            return;
        };
        let Some(digest) = release.digest.as_ref().filter(|_| !artifact.starts_with('/')) else {
            return;
        };
        tracing::info!(service = service.name, %release, "{artifact} is pinned: {digest}");
        let (name, number, kept) = (service.name.clone(), release.number, service.keep_artifacts);
        tokio::spawn(async move {
            if let Err(why) = podman.pin(&name, number, &artifact).await {
                tracing::error!(service = name, "a prune may take the image: {why}");
            }
            let latest = (0..kept).filter_map(|back| number.0.checked_sub(back)).map(Number);
            let keep: Vec<_> = needed.into_iter().chain(latest).collect();
            match podman.let_go(&name, &keep).await {
                Ok(gone) if gone.is_empty() => (),
                Ok(gone) => {
                    let gone: Vec<_> = gone.iter().map(ToString::to_string).collect();
                    let gone = gone.join(", ");
                    tracing::info!(service = name, "images of deploys {gone} are no longer pinned");
                }
                Err(why) => tracing::warn!(service = name, "old images stay pinned: {why}"),
            }
        });
    }
}

impl Keeper {
    /// Looks at the artifacts of all that is needed, once, when the daemon has started.
    pub(super) fn check_seals(&mut self) {
        let needed: Vec<_> = self.watch.phase().needed().into_iter().cloned().collect();
        for release in needed {
            let Some(seal) = self.seals.of(&release) else { continue };
            tokio::spawn(check(seal, release.number, self.outbox.clone()));
        }
    }

    /// The artifact of a release is not what was deployed.
    pub(super) fn doubted(&mut self, number: Number, doubt: &Doubt) {
        let text = doubt.to_string();
        match doubt {
            Doubt::Unreadable { .. } => {
                tracing::warn!(service = self.service.name, "{text}");
            }
            Doubt::Changed { .. } | Doubt::Gone { .. } => {
                self.note(number, &text);
                tracing::error!(service = self.service.name, page = true, "{text}");
            }
        }
    }
}

async fn check(seal: Seal, number: Number, outbox: mpsc::Sender<Input>) {
    if let Err(doubt) = seal.check().await {
        let _ = outbox.send(Input::Doubted(number, doubt)).await;
    }
}
