//! References of images: `NAME[:TAG][@sha256:HEX]`.

use std::fmt;

use super::digest::Digest;

/// Limits of registries, in bytes.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) tag: Option<String>,
    pub(super) digest: Option<Digest>,
}

impl Reference {
    /// # Errors
    /// What is invalid, as the end of a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(image_digest(digest)?)),
            None => (text, None),
        };
        // A colon before the last slash separates a port.
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest.get(name_end..).and_then(|last| last.split_once(':')) {
            Some((last, tag)) => (rest.get(..name_end + last.len()).unwrap_or(rest), Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!("{tag:?} is not a valid tag"));
        }
        if !is_name(name) {
            return Err(format!("{name:?} is not a valid name of an image"));
        }
        Ok(Self { name: name.to_owned(), tag: tag.map(str::to_owned), digest })
    }

    /// The name with this digest.
    pub(super) fn with_digest(&self, digest: &impl fmt::Display) -> String {
        format!("{}@{digest}", self.name)
    }
}

fn image_digest(text: &str) -> Result<Digest, String> {
    let digest = text.parse::<Digest>().ok().filter(|digest| !digest.is_tree());
    digest.ok_or_else(|| {
        format!(
            "{text:?} is not a digest of an image: \"sha256:\" and 64 of the digits 0-9 and a-f"
        )
    })
}

fn is_tag(text: &str) -> bool {
    let word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    let plain = |it: u8| word(it) || matches!(it, b'.' | b'-');
    text.len() <= TAG_MAX && text.bytes().next().is_some_and(word) && text.bytes().all(plain)
}

fn is_name(text: &str) -> bool {
    let (host, path) = match text.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host), path),
        _ => (None, text),
    };
    // "sha256:HEX" is the id of an image, and would parse as a name and a tag.
    text.len() <= NAME_MAX && path.split('/').all(is_part) && (host.is_some() || path != "sha256")
}

/// The first part is a registry if it is "localhost" or has a dot or a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_registry = host == "localhost" || host.contains('.') || port.is_some();
    is_registry && host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower-case letters and digits, with separators only between them.
fn is_part(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let separator =
        |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|it| it == b'-');
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain);
    ends && text.split(|it: char| u8::try_from(it).is_ok_and(plain)).all(separator)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "46e1f5615905a1697fa5c1de3d6c0f45a0d9b6a5a1ed7dbd7c60760654dc1aef";

    #[test]
    fn references_are_parsed() {
        for (text, name, tag, digest) in [
            ("weather", "weather", None, false),
            ("weather:2", "weather", Some("2"), false),
            ("localhost/weather:2", "localhost/weather", Some("2"), false),
            ("localhost:5000/weather", "localhost:5000/weather", None, false),
            (
                "Hub.example:5000/a/b__c.d--e:V_1.0-x",
                "Hub.example:5000/a/b__c.d--e",
                Some("V_1.0-x"),
                false,
            ),
            ("localhost/weather@sha256:HEX", "localhost/weather", None, true),
            ("localhost/weather:2@sha256:HEX", "localhost/weather", Some("2"), true),
            ("localhost:5000/sha256:2", "localhost:5000/sha256", Some("2"), false),
        ] {
            let text = text.replace("HEX", HEX);
            let read = Reference::parse(&text).unwrap();
            assert_eq!((read.name.as_str(), read.tag.as_deref()), (name, tag), "{text}");
            assert_eq!(read.digest.is_some(), digest, "{text}");
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn invalid_references_are_rejected() {
        for text in [
            "",
            "/",
            ":",
            "@",
            "a/",
            "/a",
            "a//b",
            "A",
            "a:",
            "a:.x",
            "a@",
            "a@b@c",
            "a b",
            "a-",
            "-a",
            "a___b",
            "a._b",
            "localhost:port/a",
            "localhost:99999/a",
            "é",
            "a:é",
            "a@sha256:12",
            "@sha256:HEX",
            "a@tree-sha256:HEX",
            "a@sha512:HEX",
            "sha256:HEX",
            "./a",
            "a/../b",
            "-.x/a",
        ] {
            let text = text.replace("HEX", HEX);
            assert!(Reference::parse(&text).is_err(), "{text}");
        }
        assert!(Reference::parse(&"a".repeat(NAME_MAX)).is_ok());
        assert!(Reference::parse(&"a".repeat(NAME_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_rejected(text in ".{0,300}") {
            _ = Reference::parse(&text);
        }

        #[test]
        fn a_parsed_reference_prints_the_same(text in "[aA0:/@._-]{1,12}(@sha256:[0-9a-f]{64})?") {
            if let Ok(read) = Reference::parse(&text) {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }
}
