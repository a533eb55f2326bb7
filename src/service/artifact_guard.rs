//! The artifacts of the releases that are needed: sealed at their deploy, and looked at again.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::mpsc;

use crate::artifact::{Podman, Verifier, VerifyError};
use crate::config::Service;
use crate::machine::Input;
use crate::model::{Release, ReleaseNumber};
use crate::service::inbox::ServiceMessage;
use crate::service::service_loop::ServiceLoop;

/// The seals of one service's releases.
#[derive(Debug)]
pub(crate) struct ArtifactGuard {
    pub(crate) podman: Option<Podman>,
    verifiers: BTreeMap<ReleaseNumber, Verifier>,
}

impl ArtifactGuard {
    /// None yet; `podman` is the socket that is asked of images.
    pub(crate) fn new(podman: &Path) -> Self {
        let podman = Podman::new(podman).inspect_err(|error| tracing::warn!("no podman: {error}"));
        Self { podman: podman.ok(), verifiers: BTreeMap::new() }
    }

    /// The seal of a release, if its artifact has a digest.
    pub(crate) fn verifier(&mut self, release: &Release) -> Option<Verifier> {
        if let Some(verifier) = self.verifiers.get(&release.number) {
            return Some(verifier.clone());
        }
        let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?);
        // One that a daemon of another version wrote is not known here, and not checked.
        let verifier = Verifier::new(artifact, digest.parse().ok()?, self.podman.clone());
        self.verifiers.insert(release.number, verifier.clone());
        Some(verifier)
    }

    /// Takes the seal that was made at a deploy.
    pub(crate) fn insert(&mut self, number: ReleaseNumber, verifier: Verifier) {
        self.verifiers.insert(number, verifier);
    }

    pub(crate) fn remove(&mut self, number: ReleaseNumber) {
        self.verifiers.remove(&number);
    }

    /// Keeps the image of a new release from being pruned, and lets those of old ones go.
    pub(crate) fn pin_image(
        &self,
        service: &Service,
        release: &Release,
        needed: Vec<ReleaseNumber>,
    ) {
        let Some((podman, artifact)) = self.podman.clone().zip(release.artifact.clone()) else {
            return;
        };
        let Some(digest) = release.digest.as_ref().filter(|_| !artifact.starts_with('/')) else {
            return;
        };
        tracing::info!(service = service.name, %release, "{artifact} is pinned: {digest}");
        let (name, number, kept) = (service.name.clone(), release.number, service.keep_artifacts);
        tokio::spawn(async move {
            if let Err(error) = podman.pin(&name, number, &artifact).await {
                tracing::error!(service = name, "a prune may take the image: {error}");
            }
            let latest = (0..kept).filter_map(|back| number.0.checked_sub(back)).map(ReleaseNumber);
            let keep: Vec<_> = needed.into_iter().chain(latest).collect();
            match podman.unpin_except(&name, &keep).await {
                Ok(gone) if gone.is_empty() => (),
                Ok(unpinned) => {
                    let deploys: Vec<_> = unpinned.iter().map(ToString::to_string).collect();
                    let gone = deploys.join(", ");
                    tracing::info!(service = name, "images of deploys {gone} are no longer pinned");
                }
                Err(error) => tracing::warn!(service = name, "old images stay pinned: {error}"),
            }
        });
    }
}

impl ServiceLoop {
    /// Looks at the artifacts of all that is needed, once, when the daemon has started.
    pub(crate) fn verify_all_artifacts(&mut self) {
        let needed: Vec<_> =
            self.watch().phase().required_releases().into_iter().cloned().collect();
        for release in needed {
            let Some(verifier) = self.artifact_guard.verifier(&release) else { continue };
            tokio::spawn(verify(verifier, release.number, self.inbox.clone()));
        }
    }

    /// The artifact of a release is not what was deployed.
    pub(crate) fn on_verify_error(&mut self, number: ReleaseNumber, error: &VerifyError) {
        let text = error.to_string();
        match error {
            VerifyError::Unreadable { .. } => {
                tracing::warn!(service = self.service.name, "{text}");
            }
            VerifyError::Changed { .. } | VerifyError::Gone { .. } => {
                tracing::error!(service = self.service.name, page = true, "{text}");
                self.input(Input::Note(number, text));
            }
        }
    }
}

async fn verify(verifier: Verifier, number: ReleaseNumber, inbox: mpsc::Sender<ServiceMessage>) {
    if let Err(error) = verifier.verify().await {
        let _ = inbox.send(ServiceMessage::VerifyFailed(number, error)).await;
    }
}
