use tokio::sync::Semaphore;

use crate::artifact::canonical_path::canonicalize;
use crate::artifact::digest::Digest;
use crate::artifact::error::ArtifactError;
use crate::artifact::hash::{HashedArtifact, hash_artifact};
use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::artifact::verifier::Verifier;

/// Bytes of the text that names an artifact; as long as a path may be.
const ARTIFACT_BYTES_MAX: usize = 4096;

/// Deploys are hashed one after the other: two at once would take as long, and more of the disk.
static DEPLOY_HASH_PERMIT: Semaphore = Semaphore::const_new(1);

/// What an artifact's text names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArtifactKind {
    /// An absolute path is a path, what has a colon or a slash in it is an image, all else is a word.
    #[default]
    Auto,
    /// An image in podman's store.
    Image,
    /// A file or a folder.
    Path,
    /// A word that only the release's command understands. It is not checked.
    Opaque,
}

/// An artifact as it is at its deploy.
#[derive(Debug, Clone)]
pub struct ResolvedArtifact {
    /// What to record and to run: a path without a slash at its end, an image without a tag.
    pub artifact: String,
    /// Tells from now on whether it is still the same; nothing does of a word.
    pub verifier: Option<Verifier>,
}

/// Says what an artifact is. Reads all of it; at most ten minutes, most of them for another deploy
/// that is at it.
///
/// # Errors
/// It can not be held to what it is: why, and what to deploy instead, in a whole sentence.
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
                "{why} (it was taken for an image; artifact = \"path\" or artifact = \"word\" in the \
                 configuration says otherwise)"
            ),
            _ => why,
        }),
        ArtifactKind::Path => resolve_path(text).await,
        ArtifactKind::Auto | ArtifactKind::Opaque => Ok(ResolvedArtifact { artifact: text.to_owned(), verifier: None }),
    }
}

impl ResolvedArtifact {
    /// What its content comes to, as it is recorded; nothing for a word.
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
        Ok((hash_artifact(&path, &DEPLOY_HASH_PERMIT).await?, path))
    };
    match resolved.await {
        Ok((HashedArtifact { digest, fingerprint }, path)) => {
            let artifact = path.display().to_string();
            Ok(ResolvedArtifact {
                verifier: Some(Verifier::with_fingerprint(&artifact, digest, fingerprint)),
                artifact,
            })
        }
        Err(ArtifactError::Gone) => {
            Err(format!("{text} is not there; the daemon's user has to see it"))
        }
        Err(ArtifactError::Unreadable(why)) => Err(why),
    }
}

async fn resolve_image(text: &str, podman: Option<&Podman>) -> Result<ResolvedArtifact, String> {
    let reference = Reference::parse(text).map_err(|why| {
        format!(
            "{text} names no image: {why}; write NAME@sha256:HEX, which `podman images --digests` shows"
        )
    })?;
    let podman = podman.ok_or_else(|| {
        format!("{text} is an image, and no podman is configured that could be asked for it")
    })?;
    let Some(digest) = &reference.digest else {
        return Err(podman.suggest_digest(&reference).await?);
    };
    let artifact = reference.with_digest(digest);
    if podman.find_image(&artifact).await?.is_none() {
        return Err(podman.explain_missing_digest(&reference, digest).await?);
    }
    let verifier = Verifier::new(&artifact, digest.clone(), Some(podman.clone()));
    Ok(ResolvedArtifact { artifact, verifier: Some(verifier) })
}
