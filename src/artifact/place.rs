use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::trouble::Trouble;

/// The path itself, without `.`, doubled slashes and a slash at its end, when no link is on its way.
///
/// # Errors
/// It is not absolute, not there, or leads through a link, which can be made to lead elsewhere.
pub(super) async fn place(text: &str) -> Result<PathBuf, Trouble> {
    let plain: PathBuf = Path::new(text).components().collect();
    if !plain.is_absolute() {
        let what =
            format!("{text} is a relative path; write it from the root, as in /opt/weather/v1");
        return Err(Trouble::Unreadable(what));
    }
    if plain.components().any(|part| part == Component::ParentDir) {
        let what = format!("{text} has \"..\" in it; write the path without");
        return Err(Trouble::Unreadable(what));
    }
    let asked = plain.clone();
    let real = tokio::task::spawn_blocking(move || asked.canonicalize()).await;
    let real = real.map_err(|error| Trouble::Unreadable(format!("{text}: {error}")))?;
    let real = real.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Gone,
        _ => Trouble::Unreadable(format!("{text} can not be reached: {error}")),
    })?;
    if real == plain {
        return Ok(plain);
    }
    Err(Trouble::Unreadable(format!(
        "{text} leads through a link, which can be made to lead elsewhere; deploy {} instead",
        real.display()
    )))
}
