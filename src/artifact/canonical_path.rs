use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::artifact::error::ArtifactError;

/// The path itself, without `.`, doubled slashes and a slash at its end, when no link is on its way.
///
/// # Errors
/// It is not absolute, not there, or leads through a link, which can be made to lead elsewhere.
pub(super) async fn canonicalize(text: &str) -> Result<PathBuf, ArtifactError> {
    let normalized: PathBuf = Path::new(text).components().collect();
    if !normalized.is_absolute() {
        let what =
            format!("{text} is a relative path; write it from the root, as in /opt/weather/v1");
        return Err(ArtifactError::Unreadable(what));
    }
    if normalized.components().any(|part| part == Component::ParentDir) {
        let what = format!("{text} has \"..\" in it; write the path without");
        return Err(ArtifactError::Unreadable(what));
    }
    let asked = normalized.clone();
    let real = tokio::task::spawn_blocking(move || asked.canonicalize()).await;
    let real = real.map_err(|error| ArtifactError::Unreadable(format!("{text}: {error}")))?;
    let real = real.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ArtifactError::Gone,
        _ => ArtifactError::Unreadable(format!("{text} can not be reached: {error}")),
    })?;
    if real == normalized {
        return Ok(normalized);
    }
    Err(ArtifactError::Unreadable(format!(
        "{text} leads through a link, which can be made to lead elsewhere; deploy {} instead",
        real.display()
    )))
}
