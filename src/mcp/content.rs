//! How much content a result carries.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Content up to this many bytes is looked into: it may be an empty text in its envelope.
const HEAD_MAX: usize = 160;
/// Texts with which servers say that there is nothing.
const EMPTY_TEXTS: [&str; 6] = ["", "[]", "{}", "null", "\"\"", "None"];
/// Fields of a block of content that say nothing without another one.
const ENVELOPE: [&str; 5] = ["type", "role", "mimeType", "annotations", "_meta"];

/// Measures one value of a result while it passes. It allocates nothing.
#[derive(Debug)]
pub(super) struct ContentMeter {
    bytes: u64,
    head: [u8; HEAD_MAX],
}

impl Default for ContentMeter {
    fn default() -> Self {
        Self { bytes: 0, head: [0; HEAD_MAX] }
    }
}

impl ContentMeter {
    /// A value begins with this byte.
    pub(super) fn start(&mut self, byte: u8) {
        self.bytes = 0;
        self.feed(&[byte]);
    }

    /// The next bytes of the value.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let from = usize::try_from(self.bytes).unwrap_or(HEAD_MAX);
        let rest = self.head.get_mut(from..).unwrap_or_default();
        rest.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        self.bytes += bytes.len() as u64;
    }

    /// The value has ended. Returns its bytes; 0 if nothing is in it.
    pub(super) fn end(&self) -> u64 {
        let whole = usize::try_from(self.bytes).ok().and_then(|bytes| self.head.get(..bytes));
        let read = |text| serde_json::from_slice::<Emptiness>(text);
        let is_empty = whole.is_some_and(|text| read(text).is_ok_and(|value| value.0));
        if is_empty { 0 } else { self.bytes }
    }
}

/// The bytes of a value that is no array and no object; 0 if nothing is in it.
pub(super) fn scalar_bytes(text: &[u8], quoted: bool) -> u64 {
    let is_empty = match str::from_utf8(text) {
        Ok(text) if quoted => is_empty_text(text),
        Ok(text) => text == "null",
        Err(_) => false,
    };
    if is_empty { 0 } else { text.len() as u64 }
}

/// Whether a text says that there is nothing.
fn is_empty_text(text: &str) -> bool {
    EMPTY_TEXTS.contains(&text.trim())
}

/// Whether nothing is in a JSON value.
struct Emptiness(bool);

impl<'de> Deserialize<'de> for Emptiness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EmptinessVisitor).map(Self)
    }
}

struct EmptinessVisitor;

impl<'de> Visitor<'de> for EmptinessVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(is_empty_text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<bool, A::Error> {
        let mut is_empty = true;
        while let Some(Emptiness(value)) = all.next_element()? {
            is_empty &= value;
        }
        Ok(is_empty)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        let (mut is_empty, mut is_named, mut has_body) = (true, false, false);
        while let Some(key) = fields.next_key::<Key>()? {
            let Emptiness(value) = fields.next_value()?;
            match key {
                Key::Envelope => (),
                Key::Uri => is_named = true,
                Key::Body => (is_empty, has_body) = (is_empty && value, true),
                Key::Other => is_empty &= value,
            }
        }
        // A resource names itself in what it answers; a link to one is an answer.
        Ok(is_empty && (has_body || !is_named))
    }
}

/// What a field of a block of content is.
enum Key {
    Envelope,
    Uri,
    Body,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key of a field")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "uri" => Key::Uri,
            "text" | "blob" => Key::Body,
            key if ENVELOPE.contains(&key) => Key::Envelope,
            _ => Key::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(text: &str) -> u64 {
        let mut meter = ContentMeter::default();
        let (first, rest) = text.as_bytes().split_first().unwrap();
        meter.start(*first);
        rest.chunks(7).for_each(|bytes| meter.feed(bytes));
        meter.end()
    }

    #[test]
    fn an_envelope_without_content_is_empty() {
        for text in [
            "[]",
            "{}",
            "[ ]",
            r#"[{"type":"text","text":""}]"#,
            r#"[{"type":"text","text":" \n"},{"type":"text","text":"[]"}]"#,
            r#"[{"type":"text","text":"null","annotations":{"priority":1}}]"#,
            r#"{"result":[]}"#,
            r#"[{"uri":"file:///a","mimeType":"text/plain","text":""}]"#,
            r#"[{"role":"user","content":{"type":"text","text":""}}]"#,
        ] {
            assert_eq!(measure(text), 0, "{text}");
        }
        let long = format!(r#"[{{"type":"text","text":"{}"}}]"#, " ".repeat(HEAD_MAX));
        for text in [
            r#"[{"type":"text","text":"a"}]"#,
            r#"{"count":0}"#,
            r#"[{"name":"echo","inputSchema":{"type":"object"}}]"#,
            r#"[{"type":"resource_link","uri":"file:///a","name":"a"}]"#,
            r#"[{"type":"image","mimeType":"image/png","data":"AA=="}]"#,
            // Too long to be looked into.
            &long,
        ] {
            assert_eq!(measure(text), text.len() as u64, "{text}");
        }
    }
}
