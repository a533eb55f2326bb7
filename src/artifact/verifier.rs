use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

use crate::artifact::canonical_path::canonicalize;
use crate::artifact::digest::Digest;
use crate::artifact::error::ArtifactError;
use crate::artifact::hash::{fingerprint, hash_artifact};
use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::artifact::stat_fingerprint::StatFingerprint;

/// Checks are hashed one after the other, and never behind a deploy: a rollback waits for them.
static VERIFY_HASH_PERMIT: Semaphore = Semaphore::const_new(1);

/// Tells whether a recorded artifact is still what it was. Clones are the same seal.
///
/// An artifact is read once; from then on the file system is asked whether anything happened to it
/// (size, times, mode and inode of each file), and it is read again only if something did. What a
/// program writes into a file that it maps into its memory is seen when the kernel writes it back.
#[derive(Debug, Clone)]
pub struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    artifact: String,
    digest: Digest,
    podman: Option<Podman>,
    /// Of the artifact when its digest was last right. Held through a check: another waits, then
    /// finds it done.
    verified_fingerprint: Mutex<Option<StatFingerprint>>,
}

/// What speaks against a recorded artifact. It prints as a whole sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyError {
    /// Its content is another.
    Changed {
        /// What is no longer the same.
        artifact: String,
        /// As it was recorded.
        recorded: Digest,
        /// As it is now.
        actual: Digest,
        /// The newest file in it, which tells most about what happened.
        newest: Option<String>,
    },
    /// It is not there any more.
    Gone {
        /// What is missing.
        artifact: String,
        /// As it was recorded.
        recorded: Digest,
    },
    /// It is not known whether it changed.
    Unreadable {
        /// What could not be looked at.
        artifact: String,
        /// Why, as a sentence.
        why: String,
    },
}

impl Verifier {
    /// A seal on an artifact as it was recorded. Its first check reads all of it. `podman` is asked
    /// for images only.
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

    /// What it is on.
    pub fn artifact(&self) -> &str {
        &self.0.artifact
    }

    /// What the artifact has to come to.
    pub fn digest(&self) -> &Digest {
        &self.0.digest
    }

    /// Looks whether the artifact is still the same. At most ten minutes, when all of a large one has
    /// to be read from a slow disk; it may be given up at any moment, by dropping the future.
    ///
    /// # Errors
    /// It is not, or that can not be told.
    pub async fn verify(&self) -> Result<(), VerifyError> {
        let Inner { artifact, digest, .. } = &*self.0;
        // No image begins with a slash, and a path is always absolute.
        let mismatch = if artifact.starts_with('/') {
            self.check_path().await
        } else {
            self.check_image().await
        };
        let artifact = artifact.clone();
        match mismatch {
            Ok(None) => Ok(()),
            Ok(Some((is, newest))) => {
                Err(VerifyError::Changed { artifact, recorded: digest.clone(), actual: is, newest })
            }
            Err(ArtifactError::Gone) => {
                Err(VerifyError::Gone { artifact, recorded: digest.clone() })
            }
            Err(ArtifactError::Unreadable(why)) => Err(VerifyError::Unreadable { artifact, why }),
        }
    }

    /// What it comes to now and its newest file, if it is not the same.
    async fn check_path(&self) -> Result<Option<(Digest, Option<String>)>, ArtifactError> {
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
        Ok(Some((hashed.digest, hashed.fingerprint.newest_file())))
    }

    async fn check_image(&self) -> Result<Option<(Digest, Option<String>)>, ArtifactError> {
        let Inner { artifact, digest, podman, .. } = &*self.0;
        let podman = podman.as_ref().ok_or_else(|| "no podman is configured".to_owned())?;
        let name = Reference::parse(artifact)?.with_digest(digest);
        let image = podman.find_image(&name).await?;
        image.map_or(Err(ArtifactError::Gone), |_| Ok(None))
    }
}

impl VerifyError {
    /// What it is about.
    pub fn artifact(&self) -> &str {
        match self {
            Self::Changed { artifact, .. }
            | Self::Gone { artifact, .. }
            | Self::Unreadable { artifact, .. } => artifact,
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { artifact, recorded: was, actual: is, newest } => {
                write!(f, "{artifact} changed since it was deployed: it was {was}, it is {is}")?;
                match newest {
                    Some(newest) => write!(f, " (newest file in it: {newest})"),
                    None => Ok(()),
                }
            }
            Self::Gone { artifact, recorded: was } => {
                write!(f, "{artifact} is gone: it was {was} when it was deployed")
            }
            Self::Unreadable { artifact, why } => {
                write!(f, "whether {artifact} is still the same is not known: {why}")
            }
        }
    }
}

impl std::error::Error for VerifyError {}
