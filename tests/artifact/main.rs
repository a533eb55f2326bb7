//! Artifacts: what a deploy accepts, and the error when the artifact changes later.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod fake_podman;
mod images;
mod outside_links;
mod paths;
mod podman_store;
mod unreadable;

use proptest::prelude::*;
use rollbackd::artifact::{ArtifactKind, Digest, resolve};

/// The error for an artifact that is refused.
async fn resolve_error(kind: ArtifactKind, text: &str) -> String {
    resolve(kind, text, None).await.unwrap_err()
}

#[tokio::test]
async fn opaque_reference_is_accepted_unchanged() {
    for (kind, text) in [
        (ArtifactKind::Auto, "everything-v1"),
        (ArtifactKind::Auto, "v1.2+3"),
        (ArtifactKind::Opaque, "localhost/weather:2"),
        (ArtifactKind::Opaque, "/opt/weather"),
        (ArtifactKind::Opaque, "@scope/package@1.0"),
    ] {
        let found = resolve(kind, text, None).await.unwrap();
        assert_eq!((found.artifact.as_str(), found.digest()), (text, None));
    }
}

#[tokio::test]
async fn multi_line_reference_is_rejected() {
    for kind in [ArtifactKind::Auto, ArtifactKind::Image, ArtifactKind::Path, ArtifactKind::Opaque]
    {
        for text in ["", "a\nb", "/a\0b", &"a".repeat(4097)] {
            let said = resolve_error(kind, text).await;
            assert_eq!(said, "an artifact is one line of 1 to 4096 bytes");
        }
    }
}

#[tokio::test]
async fn error_for_image_like_text_names_the_kind_option() {
    for text in ["dist/index.js", "@scope/package", "a:b", "./a", "http://example.org/a"] {
        let said = resolve_error(ArtifactKind::Auto, text).await;
        assert!(said.contains("artifact = \"path\" or artifact = \"opaque\""), "{said}");
        let said = resolve_error(ArtifactKind::Image, text).await;
        assert!(!said.contains("artifact = \"path\""), "{said}");
    }
    let said = resolve_error(ArtifactKind::Image, "localhost/weather@sha256:12").await;
    assert!(said.contains("64 of the digits 0-9 and a-f; write NAME@sha256:HEX"), "{said}");
    let said = resolve_error(ArtifactKind::Image, "localhost/weather:2").await;
    assert!(said.ends_with("is an image, and no `podman` is configured"), "{said}");
}

proptest! {
    #[test]
    fn digest_parser_accepts_any_text_without_panic(text in ".{0,90}") {
        prop_assert!(text.parse::<Digest>().is_err());
    }

    #[test]
    fn digest_round_trips(text in "(tree-)?sha256:[0-9a-f]{64}") {
        let digest: Digest = text.parse().unwrap();
        prop_assert_eq!(digest.to_string(), text.clone());
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(&json, &format!("\"{text}\""));
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }

    #[test]
    fn digest_has_one_canonical_form(text in "(tree-|TREE-)?(sha256|SHA256):([0-9A-F]{64}|[0-9a-f]{0,63}|[0-9a-f]{65,66})") {
        let capitals = text.chars().any(|it| it.is_ascii_uppercase());
        let length = text.rsplit(':').next().unwrap().len();
        prop_assert_eq!(text.parse::<Digest>().is_err(), capitals || length != 64);
    }
}
