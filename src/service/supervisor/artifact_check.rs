//! Whether the artifact of a release is still what was deployed, asked before a start and before a switch.

use std::time::Duration;

use crate::artifact::{Verifier, VerifyError};

/// How long the check may delay a rollback. An unchanged artifact takes less than a tenth of a second.
/// A slow disk is no reason to leave a release unused that answers.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Checks the artifact before traffic is switched to its release. `None`: nothing is wrong with it.
pub(super) async fn verify_artifact(verifier: Option<Verifier>) -> Option<VerifyError> {
    let verifier = verifier?;
    match tokio::time::timeout(VERIFY_TIMEOUT, verifier.verify()).await {
        Ok(result) => result.err(),
        Err(_) => {
            let why = format!("{} was not checked within {VERIFY_TIMEOUT:?}", verifier.artifact());
            Some(VerifyError::Unreadable { artifact: verifier.artifact().to_owned(), why })
        }
    }
}

/// Checks the artifact before a start of its release.
///
/// # Errors
/// When the artifact is not what was deployed. One that cannot be read is not an error.
pub(super) async fn verify_before_start(verifier: Option<&Verifier>) -> Result<(), String> {
    let Some(verifier) = verifier else { return Ok(()) };
    match verifier.verify().await {
        Err(error @ (VerifyError::Changed { .. } | VerifyError::Gone { .. })) => {
            Err(error.to_string())
        }
        Ok(()) | Err(VerifyError::Unreadable { .. }) => Ok(()),
    }
}
