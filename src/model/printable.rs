//! Text from outside, made safe for a terminal, a journal and a log file.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Whether a character changes what stands around it on a screen, or splits a line: control
/// characters, bidirectional controls, line and paragraph separators, invisible tags.
pub fn is_unsafe_to_print(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Escapes every unsafe character as `\u{202e}`, and a line break as `\n`.
pub fn escape_unsafe(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe_to_print) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    // A string takes every write.
    let _ = EscapingWriter(&mut escaped).write_str(text);
    Cow::Owned(escaped)
}

/// Escapes, in serialized JSON, what its serializer leaves as it is. The result is the same JSON value.
pub fn escape_json(json: String) -> String {
    if !json.contains(is_unsafe_to_print) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        // Outside of strings, JSON has line breaks and tabs only.
        if is_unsafe_to_print(c) && !matches!(c, '\n' | '\t') {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Escapes what is written through it.
#[derive(Debug)]
pub struct EscapingWriter<W>(pub W);

impl<W: fmt::Write> fmt::Write for EscapingWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| is_unsafe_to_print(*c)) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            write!(self.0, "{}", found.escape_default())?;
            rest = after.get(found.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_the_cursor_or_the_text_is_escaped() {
        let text = "a\u{1b}[31mb\u{202e}c\u{2028}d\u{9b}e\nf \u{e0041}\u{feff} größe 東京 👩‍💻";
        assert_eq!(
            escape_unsafe(text),
            "a\\u{1b}[31mb\\u{202e}c\\u{2028}d\\u{9b}e\\nf \\u{e0041}\\u{feff} größe 東京 👩‍💻"
        );
        assert!(matches!(escape_unsafe("größe 100 %"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn escaped_json_is_the_same_value_and_safe(text in any::<String>()) {
            let value = serde_json::json!({ "because": text, "list": [text] });
            for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let escaped = escape_json(json);
                let is_bad = |c: char| is_unsafe_to_print(c) && c != '\n';
                prop_assert!(!escaped.contains(is_bad), "{:?}", escaped);
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), &value);
            }
            prop_assert!(!escape_unsafe(&text).contains(is_unsafe_to_print));
        }
    }
}
