use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::artifact::error::ArtifactError;

/// The absolute path without `.`, double slashes and a final slash.
///
/// # Errors
/// The path is relative, does not exist, or contains a link, whose target can change.
pub(super) async fn canonicalize(text: &str) -> Result<PathBuf, ArtifactError> {
    let normalized: PathBuf = Path::new(text).components().collect();
    if !normalized.is_absolute() {
        let what =
            format!("{text} is a relative path; write an absolute one, such as /opt/weather/v1");
        return Err(ArtifactError::Unreadable(what));
    }
    if normalized.components().any(|part| part == Component::ParentDir) {
        let what = format!("{text} contains \"..\"; write the path without it");
        return Err(ArtifactError::Unreadable(what));
    }
    let path = normalized.clone();
    let real = tokio::task::spawn_blocking(move || path.canonicalize()).await;
    let real = real.map_err(|error| ArtifactError::Unreadable(format!("{text}: {error}")))?;
    let real = real.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ArtifactError::Missing,
        _ => ArtifactError::Unreadable(format!("{text} cannot be reached: {error}")),
    })?;
    if real == normalized {
        return Ok(normalized);
    }
    Err(ArtifactError::Unreadable(format!(
        "{text} contains a link, whose target can change; deploy {} instead",
        real.display()
    )))
}
