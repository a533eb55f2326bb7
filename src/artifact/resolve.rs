//! Finds the artifact of a deploy, and the digest of its content.

use tokio::sync::Semaphore;

use crate::artifact::canonical_path::canonicalize;
use crate::artifact::digest::Digest;
use crate::artifact::error::ArtifactError;
use crate::artifact::hash::{HashedArtifact, hash_artifact, run_blocking};
use crate::artifact::outside_links::outside_links;
use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::artifact::verifier::Verifier;
use crate::model::OutsideLinks;

/// Bytes of the text that names an artifact: the limit of a path.
const ARTIFACT_BYTES_MAX: usize = 4096;

/// One deploy is hashed at a time: two would compete for the disk. Checks have their own permit, so
/// that a deploy never delays a rollback.
static DEPLOY_HASH_PERMIT: Semaphore = Semaphore::const_new(1);

/// How to interpret the text of an artifact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArtifactKind {
    /// An absolute path is a path; other text with a colon or a slash is an image; the rest is opaque.
    #[default]
    Auto,
    /// An image in podman's store.
    Image,
    /// A file or a directory.
    Path,
    /// A text that only the release's command interprets. It is not verified.
    Opaque,
}

/// An artifact at its deploy.
#[derive(Debug, Clone)]
pub struct ResolvedArtifact {
    /// The text to record and to run: a path without a final slash, an image without a tag.
    pub artifact: String,
    /// Checks later that it is still the same; `None` for an opaque text.
    pub verifier: Option<Verifier>,
    /// The links of a directory that lead out of it.
    pub outside_links: OutsideLinks,
}

/// Finds an artifact and reads all of it. The read, including the wait for that of another deploy,
/// takes at most ten minutes.
///
/// # Errors
/// Why it cannot be verified later, and what to deploy instead, in a whole sentence.
pub async fn resolve(
    kind: ArtifactKind,
    text: &str,
    podman: Option<&Podman>,
) -> Result<ResolvedArtifact, String> {
    if text.is_empty() || ARTIFACT_BYTES_MAX < text.len() || text.contains(char::is_control) {
        return Err(format!("an artifact is one line of 1 to {ARTIFACT_BYTES_MAX} bytes"));
    }
    match kind.detect(text) {
        ArtifactKind::Image => resolve_image(text, podman).await.map_err(|why| match kind {
            ArtifactKind::Auto => format!(
                "{why} (it was taken for an image; artifact = \"path\" or artifact = \"opaque\" in the \
                 configuration says otherwise)"
            ),
            _ => why,
        }),
        ArtifactKind::Path => resolve_path(text).await,
        ArtifactKind::Auto | ArtifactKind::Opaque => Ok(ResolvedArtifact {
            artifact: text.to_owned(),
            verifier: None,
            outside_links: OutsideLinks::default(),
        }),
    }
}

impl ResolvedArtifact {
    /// The digest to record; `None` for an opaque text.
    pub fn digest(&self) -> Option<&Digest> {
        self.verifier.as_ref().map(Verifier::digest)
    }
}

impl ArtifactKind {
    /// Never `Auto`.
    fn detect(self, text: &str) -> Self {
        match self {
            Self::Auto if text.starts_with('/') => Self::Path,
            Self::Auto if text.contains([':', '/']) => Self::Image,
            Self::Auto => Self::Opaque,
            kind => kind,
        }
    }
}

async fn resolve_path(text: &str) -> Result<ResolvedArtifact, String> {
    let resolved = async {
        let path = canonicalize(text).await?;
        let hashed = hash_artifact(&path, &DEPLOY_HASH_PERMIT).await?;
        Ok((hashed, run_blocking(&path, outside_links).await?, path))
    };
    match resolved.await {
        Ok((HashedArtifact { digest, fingerprint }, outside_links, path)) => {
            let artifact = path.display().to_string();
            Ok(ResolvedArtifact {
                verifier: Some(Verifier::with_fingerprint(&artifact, digest, fingerprint)),
                artifact,
                outside_links,
            })
        }
        Err(ArtifactError::Missing) => {
            Err(format!("{text} does not exist, or the daemon's user cannot see it"))
        }
        Err(ArtifactError::Unreadable(why)) => Err(why),
    }
}

async fn resolve_image(text: &str, podman: Option<&Podman>) -> Result<ResolvedArtifact, String> {
    let reference = Reference::parse(text).map_err(|why| {
        format!(
            "{text} is not an image: {why}; write NAME@sha256:HEX, see `podman images --digests`"
        )
    })?;
    let podman =
        podman.ok_or_else(|| format!("{text} is an image, and no `podman` is configured"))?;
    let Some(digest) = &reference.digest else {
        return Err(podman.suggest_digest(&reference).await?);
    };
    let artifact = reference.with_digest(digest);
    if podman.find_image(&artifact).await?.is_none() {
        return Err(podman.explain_missing_digest(&reference, digest).await?);
    }
    let verifier = Verifier::new(&artifact, digest.clone(), Some(podman.clone()));
    let outside_links = OutsideLinks::default();
    Ok(ResolvedArtifact { artifact, verifier: Some(verifier), outside_links })
}
