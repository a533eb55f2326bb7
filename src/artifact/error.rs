/// Characters of another program's text in a message.
const EXTERNAL_TEXT_MAX: usize = 300;

/// Why an artifact could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArtifactError {
    /// It does not exist.
    #[error("it does not exist")]
    Missing,
    /// Any other reason, as a whole sentence that names the artifact.
    #[error("{0}")]
    Unreadable(String),
}

impl From<String> for ArtifactError {
    fn from(why: String) -> Self {
        Self::Unreadable(why)
    }
}

/// Another program's text, short and on one line.
pub(super) fn shorten(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(EXTERNAL_TEXT_MAX).map(plain).collect()
}

/// A path of any bytes, on one line.
pub(super) fn printable_path(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let plain =
        |letter: char| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter };
    text.chars().map(plain).collect()
}
