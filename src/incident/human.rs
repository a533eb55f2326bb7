//! What people write into a post-mortem: six parts of the document, between markers.
//!
//! ```text
//! <!-- rollbackd:write root_cause -->
//! text
//! <!-- rollbackd:end -->
//! ```
//!
//! Everything outside of the markers is generated again. The text between them is never touched.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The parts, in the order of the document: key, heading, what belongs there.
pub const PARTS: [(&str, &str, &str); 6] = [
    ("summary", "Summary", "replaces the generated summary"),
    ("root_cause", "Root cause", "why it happened, not the symptom"),
    ("factors", "Contributing factors", "what let it happen, or made it worse"),
    ("remediation", "Remediation", "what was done, and what is left"),
    ("went_well", "What went well", "what to keep"),
    ("went_badly", "What did not go well", "what to change"),
];

/// Longest text of all parts together, in bytes.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;

const OPEN: &str = "<!-- rollbackd:write ";
const OPEN_END: &str = " -->";
const CLOSE: &str = "<!-- rollbackd:end -->";

/// The texts of people, by part. A part without text is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HumanParts(BTreeMap<String, String>);

impl HumanParts {
    /// The text of a part; empty where nothing was written.
    pub fn get(&self, part: &str) -> &str {
        self.0.get(part).map_or("", String::as_str)
    }

    /// Sets a part; an empty text removes it. An unknown part is ignored.
    pub fn set(&mut self, part: &str, text: &str) {
        let text = text.trim_end().trim_start_matches(['\n', '\r']);
        if text.is_empty() || !PARTS.iter().any(|(key, ..)| *key == part) {
            self.0.remove(part);
        } else {
            self.0.insert(part.to_owned(), text.to_owned());
        }
    }

    /// Each part with text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(part, text)| (part.as_str(), text.as_str()))
    }

    /// Identifies the text, so that two editors cannot overwrite each other.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (part, text) in &self.0 {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let mut digest = String::new();
        for byte in hash.finalize().iter().take(8) {
            // Writing to a string does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        digest
    }

    /// The parts whose text differs.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let differs = |key: &&str| self.get(key) != other.get(key);
        PARTS.iter().map(|(key, ..)| *key).filter(differs).map(str::to_owned).collect()
    }

    /// Checks texts that a client sent.
    ///
    /// # Errors
    /// An unknown part, a text that is too long, or one that contains a marker.
    pub fn validate(&self) -> Result<(), String> {
        for (part, text) in &self.0 {
            if !PARTS.iter().any(|(key, ..)| key == part) {
                return Err(format!("{part:?} is no part of a post-mortem"));
            }
            let has_marker = |line: &str| line.trim() == CLOSE || line.trim().starts_with(OPEN);
            if text.lines().any(has_marker) {
                return Err(format!("the text of {part} contains a marker line; remove it"));
            }
            let is_wrong = |c: char| c.is_control() && c != '\n' && c != '\t';
            if text.contains(is_wrong) {
                return Err(format!("the text of {part} contains control characters; remove them"));
            }
        }
        let bytes: usize = self.0.values().map(String::len).sum();
        if bytes > TEXT_BYTES_MAX {
            return Err(format!("the texts have {bytes} bytes; write at most {TEXT_BYTES_MAX}"));
        }
        Ok(())
    }
}

/// Writes a part with its markers.
pub(super) fn write_part(out: &mut String, part: &str, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{OPEN}{part}{OPEN_END}");
    if !text.is_empty() {
        out.push_str(text);
        out.push('\n');
    }
    out.push_str(CLOSE);
    out.push('\n');
}

/// Reads the parts of a document.
///
/// # Errors
/// The line of a marker that is broken, missing or there twice. Then no text is taken over, and none
/// is lost: the document stays as it is.
pub fn parse(document: &str) -> Result<HumanParts, String> {
    let mut parts = HumanParts::default();
    let mut open: Option<(&str, usize, Vec<&str>)> = None;
    let mut seen = Vec::new();
    for (index, line) in document.lines().enumerate() {
        let (number, marker) = (index + 1, line.trim());
        if let Some(rest) = marker.strip_prefix(OPEN) {
            if let Some((part, begun, _)) = open {
                return Err(format!(
                    "line {number}: `{part}` of line {begun} has no end; write {CLOSE} after it"
                ));
            }
            let part = rest.strip_suffix(OPEN_END).unwrap_or_default();
            if !PARTS.iter().any(|(key, ..)| *key == part) {
                return Err(format!("line {number}: this marker names no part; restore it"));
            }
            if seen.contains(&part) {
                return Err(format!("line {number}: `{part}` is there twice; merge both texts"));
            }
            seen.push(part);
            open = Some((part, number, Vec::new()));
        } else if marker == CLOSE {
            let Some((part, _, lines)) = open.take() else {
                return Err(format!("line {number}: an end without its beginning; remove it"));
            };
            parts.set(part, &lines.join("\n"));
        } else if let Some((.., lines)) = &mut open {
            lines.push(line);
        }
    }
    if let Some((part, begun, _)) = open {
        return Err(format!("line {begun}: `{part}` has no end; write {CLOSE} after its text"));
    }
    match PARTS.iter().find(|(key, ..)| !seen.contains(key)) {
        Some((part, ..)) => Err(format!("the markers of `{part}` are missing; restore them")),
        None => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(parts: &HumanParts) -> String {
        let mut text = "# generated\n".to_owned();
        for (part, heading, _) in PARTS {
            let _ = writeln!(text, "## {heading}\n\ngenerated <!-- rollbackd:facts -->\n");
            write_part(&mut text, part, parts.get(part));
        }
        text
    }

    #[test]
    fn broken_markers_are_errors_with_their_line() {
        let good = document(&HumanParts::default());
        assert_eq!(parse(&good), Ok(HumanParts::default()));
        let cases = [
            (good.replacen(CLOSE, "", 1), "has no end"),
            (good.replacen("write root_cause", "write rootcause", 1), "names no part"),
            (good.replacen("write root_cause", "write summary", 1), "there twice"),
            (format!("{good}{CLOSE}\n"), "an end without its beginning"),
            (good.replacen("<!-- rollbackd:write went_badly -->", "", 1), "an end without"),
            ("# nothing\n".to_owned(), "are missing"),
        ];
        for (text, words) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_text_with_a_marker_is_refused() {
        let mut parts = HumanParts::default();
        parts.set("root_cause", &format!("x\n  {CLOSE}\ny"));
        assert!(parts.validate().is_err());
        parts.set("root_cause", "fine\n\ttext");
        assert_eq!(parts.validate(), Ok(()));
        parts.set("root_cause", &"x".repeat(TEXT_BYTES_MAX + 1));
        assert!(parts.validate().unwrap_err().contains("at most"));
        parts.set("root_cause", "\u{1b}[31m");
        assert!(parts.validate().is_err());
    }

    proptest! {
        #[test]
        fn what_people_wrote_survives(texts in prop::collection::vec("[ -~\\n\\tü]{0,80}", PARTS.len())) {
            let mut parts = HumanParts::default();
            for ((part, ..), text) in PARTS.iter().zip(&texts) {
                parts.set(part, text);
            }
            if parts.validate().is_ok() {
                let read = parse(&document(&parts)).unwrap();
                prop_assert_eq!(&read, &parts);
                // A second regeneration changes nothing more.
                prop_assert_eq!(parse(&document(&read)).unwrap().digest(), parts.digest());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(<!-- rollbackd:(write [a-z_]{0,12}|end) -->\n|[a-z]{0,5}\n){0,30}") {
            let _ = parse(&text);
        }
    }
}
