//! The artifacts of the releases that are needed: their verifiers, and pins of container images.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::Instrument as _;

use crate::artifact::{Podman, Verifier, VerifyError};
use crate::config::Service;
use crate::model::{Release, ReleaseNumber};
use crate::service::supervisor::reporter::Reporter;

/// The verifiers of one service's releases.
#[derive(Debug)]
pub(crate) struct ArtifactGuard {
    pub(crate) podman: Option<Podman>,
    verifiers: BTreeMap<ReleaseNumber, Verifier>,
}

impl ArtifactGuard {
    /// No verifier yet; `podman` is the socket that knows the images.
    pub(crate) fn new(podman: &Path) -> Self {
        let podman =
            Podman::new(podman).inspect_err(|error| tracing::warn!("cannot use podman: {error}"));
        Self { podman: podman.ok(), verifiers: BTreeMap::new() }
    }

    /// The verifier of a release, if its artifact has a digest.
    pub(crate) fn verifier(&mut self, release: &Release) -> Option<Verifier> {
        if let Some(verifier) = self.verifiers.get(&release.number) {
            return Some(verifier.clone());
        }
        let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?);
        // A digest that another version of the daemon wrote may be unknown here: no check.
        let verifier = Verifier::new(artifact, digest.parse().ok()?, self.podman.clone());
        self.verifiers.insert(release.number, verifier.clone());
        Some(verifier)
    }

    /// Keeps the verifier that a deploy made.
    pub(crate) fn insert(&mut self, number: ReleaseNumber, verifier: Verifier) {
        self.verifiers.insert(number, verifier);
    }

    pub(crate) fn remove(&mut self, number: ReleaseNumber) {
        self.verifiers.remove(&number);
    }

    /// Verifies the artifacts of these releases, once; the results arrive as messages.
    pub(crate) fn verify_all(&mut self, releases: Vec<&Release>, reporter: &Reporter) {
        for release in releases {
            let Some(verifier) = self.verifier(release) else { continue };
            let verifying = verify(verifier, release.number, reporter.clone());
            tokio::spawn(verifying.in_current_span());
        }
    }

    /// Protects the image of a new release from being pruned, and unpins images of old releases.
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
        tracing::info!(service = service.name, %release, "pinning {artifact} ({digest})");
        let (name, number, kept) = (service.name.clone(), release.number, service.keep_artifacts);
        tokio::spawn(async move {
            if let Err(error) = podman.pin(&name, number, &artifact).await {
                tracing::error!(
                    service = name,
                    "cannot pin the image, so a prune may remove it: {error}"
                );
            }
            let latest = (0..kept).filter_map(|back| number.0.checked_sub(back)).map(ReleaseNumber);
            let keep: Vec<_> = needed.into_iter().chain(latest).collect();
            match podman.unpin_except(&name, &keep).await {
                Ok(unpinned) if unpinned.is_empty() => (),
                Ok(unpinned) => {
                    let deploys: Vec<_> = unpinned.iter().map(ToString::to_string).collect();
                    let deploys = deploys.join(", ");
                    tracing::info!(service = name, "unpinned the images of deploys {deploys}");
                }
                Err(error) => tracing::warn!(service = name, "cannot unpin old images: {error}"),
            }
        });
    }
}

/// Logs that the artifact of a release is not what was deployed, or cannot be read. Returns the note
/// for the timeline, if it deserves one.
pub(crate) fn report_error(service: &str, error: &VerifyError) -> Option<String> {
    let text = error.to_string();
    match error {
        VerifyError::Unreadable { .. } => {
            tracing::warn!(service, "{text}");
            None
        }
        VerifyError::Changed { .. } | VerifyError::Gone { .. } => {
            tracing::error!(service, page = true, "{text}");
            Some(text)
        }
    }
}

async fn verify(verifier: Verifier, number: ReleaseNumber, reporter: Reporter) {
    if let Err(error) = verifier.verify().await {
        reporter.verify_failed(number, error).await;
    }
}
