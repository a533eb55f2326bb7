//! Artifacts: what is taken at a deploy, and what is said when it is not the same later.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod fakes;
mod images;
mod nobody;
mod paths;
mod store;

use proptest::prelude::*;
use rollbackd::artifact::{Digest, Kind, find};

/// What is said about an artifact that is not taken.
async fn refused(kind: Kind, text: &str) -> String {
    find(kind, text, None).await.unwrap_err()
}

#[tokio::test]
async fn a_word_is_taken_as_it_is() {
    for (kind, text) in [
        (Kind::Auto, "everything-v1"),
        (Kind::Auto, "v1.2+3"),
        (Kind::Word, "localhost/weather:2"),
        (Kind::Word, "/opt/weather"),
        (Kind::Word, "@scope/package@1.0"),
    ] {
        let found = find(kind, text, None).await.unwrap();
        assert_eq!((found.artifact.as_str(), found.digest()), (text, None));
    }
}

#[tokio::test]
async fn what_is_no_line_is_refused() {
    for kind in [Kind::Auto, Kind::Image, Kind::Path, Kind::Word] {
        for text in ["", "a\nb", "/a\0b", &"a".repeat(4097)] {
            let said = refused(kind, text).await;
            assert_eq!(said, "an artifact is one line of 1 to 4096 bytes");
        }
    }
}

#[tokio::test]
async fn where_a_text_was_taken_for_an_image_it_is_said_how_to_say_otherwise() {
    for text in ["dist/index.js", "@scope/package", "a:b", "./a", "http://example.org/a"] {
        let said = refused(Kind::Auto, text).await;
        assert!(said.contains("artifact = \"path\" or artifact = \"word\""), "{said}");
        let said = refused(Kind::Image, text).await;
        assert!(!said.contains("artifact = \"path\""), "{said}");
    }
    let said = refused(Kind::Image, "localhost/weather@sha256:12").await;
    assert!(said.contains("64 of the digits 0-9 and a-f; write NAME@sha256:HEX"), "{said}");
    let said = refused(Kind::Image, "localhost/weather:2").await;
    assert!(said.ends_with("no podman is configured that could be asked for it"), "{said}");
}

proptest! {
    #[test]
    fn any_text_is_a_digest_or_not(text in ".{0,90}") {
        prop_assert!(text.parse::<Digest>().is_err());
    }

    #[test]
    fn a_digest_prints_as_it_was_read(text in "(tree-)?sha256:[0-9a-f]{64}") {
        let digest: Digest = text.parse().unwrap();
        prop_assert_eq!(digest.to_string(), text.clone());
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(&json, &format!("\"{text}\""));
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn a_digest_has_one_form(text in "(tree-|TREE-)?(sha256|SHA256):([0-9A-F]{64}|[0-9a-f]{0,63}|[0-9a-f]{65,66})") {
        let capitals = text.chars().any(|it| it.is_ascii_uppercase());
        let length = text.rsplit(':').next().unwrap().len();
        prop_assert_eq!(text.parse::<Digest>().is_err(), capitals || length != 64);
    }
}
