//! Checks whether a recorded artifact is still the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use crate::artifact::canonical_path::canonicalize;
use crate::artifact::digest::Digest;
use crate::artifact::error::ArtifactError;
use crate::artifact::hash::{fingerprint, hash_artifact};
use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::artifact::stat_fingerprint::StatFingerprint;

/// One check is hashed at a time. Deploys have their own permit: a rollback does not wait for them.
static VERIFY_HASH_PERMIT: Semaphore = Semaphore::const_new(1);

/// How long a check may take, with the checks before it.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Checks a recorded artifact. Clones share the result of the last check.
///
/// The first check reads the artifact. A later one compares the metadata (size, times, mode and inode
/// of each file), and reads again only if that changed. A write through a memory map counts from when
/// the kernel writes it back.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    artifact: String,
    digest: Digest,
    podman: Option<Podman>,
    /// The fingerprint at the last successful check. Locked during a check, so that a concurrent one
    /// reuses its result.
    verified_fingerprint: Mutex<Option<StatFingerprint>>,
}

/// Why a recorded artifact must not start, as a whole sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Its content changed.
    #[error("{artifact} changed since the deploy: recorded {recorded}, now {actual}{}", shown_newest(.newest.as_deref()))]
    Changed {
        /// The artifact.
        artifact: String,
        /// The digest at the deploy.
        recorded: Digest,
        /// The digest now.
        actual: Digest,
        /// The newest file in it, the likely cause.
        newest: Option<String>,
    },
    /// It no longer exists.
    #[error("{artifact} is missing; the deploy recorded {recorded}")]
    Gone {
        /// The artifact.
        artifact: String,
        /// The digest at the deploy.
        recorded: Digest,
    },
    /// It cannot be read, so that it may have changed.
    #[error("cannot verify {artifact}: {why}")]
    Unreadable {
        /// The artifact.
        artifact: String,
        /// The reason, as a sentence.
        why: String,
    },
}

/// The content of an artifact that changed.
struct Mismatch {
    actual: Digest,
    newest: Option<String>,
}

impl Verifier {
    /// A verifier of a recorded artifact. Its first check reads all of it. Only images need `podman`.
    pub fn new(artifact: &str, digest: Digest, podman: Option<Podman>) -> Self {
        Self::build(artifact, digest, podman, None)
    }

    pub(super) fn with_fingerprint(artifact: &str, digest: Digest, known: StatFingerprint) -> Self {
        Self::build(artifact, digest, None, Some(known))
    }

    fn build(
        artifact: &str,
        digest: Digest,
        podman: Option<Podman>,
        known: Option<StatFingerprint>,
    ) -> Self {
        let (artifact, known) = (artifact.to_owned(), Mutex::new(known));
        Self(Arc::new(Inner { artifact, digest, podman, verified_fingerprint: known }))
    }

    /// The artifact that it checks.
    pub fn artifact(&self) -> &str {
        &self.0.artifact
    }

    /// The digest that the artifact must have.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Checks that the artifact is still the same. The metadata and the content may take ten minutes
    /// each, after the checks before this one; forty minutes in all. A drop of the future cancels the check.
    ///
    /// # Errors
    /// The artifact changed, is missing, or cannot be read.
    pub async fn verify(&self) -> Result<(), VerifyError> {
        let Inner { artifact, digest, .. } = &*self.0;
        // A recorded path is absolute, and no image begins with a slash.
        let check = async {
            match artifact.starts_with('/') {
                true => self.check_path().await,
                false => self.check_image().await,
            }
        };
        // Each step has a limit of its own; the wait for other checks and for podman is in this one.
        let mismatch = tokio::time::timeout(VERIFY_TIMEOUT, check).await.unwrap_or_else(|_| {
            let minutes = VERIFY_TIMEOUT.as_secs() / 60;
            Err(ArtifactError::Unreadable(format!("it was not verified within {minutes} minutes")))
        });
        let artifact = artifact.clone();
        match mismatch {
            Ok(None) => Ok(()),
            Ok(Some(Mismatch { actual, newest })) => {
                Err(VerifyError::Changed { artifact, recorded: digest.clone(), actual, newest })
            }
            Err(ArtifactError::Missing) => {
                Err(VerifyError::Gone { artifact, recorded: digest.clone() })
            }
            Err(ArtifactError::Unreadable(why)) => Err(VerifyError::Unreadable { artifact, why }),
        }
    }

    async fn check_path(&self) -> Result<Option<Mismatch>, ArtifactError> {
        let path = canonicalize(&self.0.artifact).await?;
        let mut known = self.0.verified_fingerprint.lock().await;
        if known.is_some() && *known == Some(fingerprint(&path).await?) {
            return Ok(None);
        }
        let hashed = hash_artifact(&path, &VERIFY_HASH_PERMIT).await?;
        if hashed.digest == self.0.digest {
            *known = Some(hashed.fingerprint);
            return Ok(None);
        }
        let newest = hashed.fingerprint.newest_file();
        Ok(Some(Mismatch { actual: hashed.digest, newest }))
    }

    async fn check_image(&self) -> Result<Option<Mismatch>, ArtifactError> {
        let Inner { artifact, digest, podman, .. } = &*self.0;
        let podman = podman.as_ref().ok_or_else(|| "no podman is configured".to_owned())?;
        let name = Reference::parse(artifact)?.with_digest(digest);
        let image = podman.find_image(&name).await?;
        image.map_or(Err(ArtifactError::Missing), |_| Ok(None))
    }
}

impl VerifyError {
    /// The artifact.
    pub fn artifact(&self) -> &str {
        match self {
            Self::Changed { artifact, .. }
            | Self::Gone { artifact, .. }
            | Self::Unreadable { artifact, .. } => artifact,
        }
    }
}

fn shown_newest(newest: Option<&str>) -> String {
    newest.map(|newest| format!(" (newest file in it: {newest})")).unwrap_or_default()
}
