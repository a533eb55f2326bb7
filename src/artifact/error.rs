/// Characters of others' words that reach a sentence of ours.
const EXTERNAL_TEXT_MAX: usize = 300;

/// Why an artifact could not be looked at.
#[derive(Debug)]
pub(super) enum ArtifactError {
    /// It is not there.
    Gone,
    /// Anything else, as a whole sentence that names what it is about.
    Unreadable(String),
}

impl From<String> for ArtifactError {
    fn from(why: String) -> Self {
        Self::Unreadable(why)
    }
}

/// Others' words, short and on one line.
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
