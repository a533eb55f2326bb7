//! How the image of a deploy differs from that of the release before it, in lines of a document.

use crate::artifact::{ImageDiff, ImageLayer, Podman};
use crate::incident::Change;
use crate::incident::text::{clean_name, clean_text};

/// The labels that the OCI defines; the values of others can be anything.
const OCI_LABELS: &str = "org.opencontainers.image.";
/// Layers that a line names on each side.
const LAYERS_LISTED: usize = 6;
/// Labels, and names of the environment, that are listed.
const NAMES_LISTED: usize = 20;
/// Characters of a name.
const NAME_MAX: usize = 80;
/// Digits of a digest that are shown, as `podman images` shows them.
const DIGITS_SHOWN: usize = 12;

/// Whether an artifact is an image.
pub(super) fn is_image(artifact: &str) -> bool {
    artifact.contains("@sha256:")
}

/// What is different in the image `new`.
///
/// # Errors
/// podman does not answer, or has not both images.
pub(super) async fn image_changes(
    podman: &Podman,
    old: &str,
    new: &str,
) -> Result<Vec<Change>, String> {
    let (before, after) = tokio::join!(podman.image_contents(old), podman.image_contents(new));
    let missing = |name: &str| format!("{name} is not in podman's store");
    let before = before?.ok_or_else(|| missing(old))?;
    let after = after?.ok_or_else(|| missing(new))?;
    Ok(lines(&before.diff(&after)))
}

fn lines(diff: &ImageDiff) -> Vec<Change> {
    let change = |kind: &str, text: String| Change { kind: kind.to_owned(), text };
    let mut changes = Vec::new();
    let differing = diff.layers_added.len().max(diff.layers_removed.len());
    if differing > 0 {
        let sides = [("added", &diff.layers_added), ("removed", &diff.layers_removed)];
        let sides = sides.into_iter().filter(|(_, layers)| !layers.is_empty());
        let sides: Vec<_> = sides.map(|(what, it)| format!("{what} {}", list(it))).collect();
        let text = format!("{differing} of {} layers differ: {}", diff.layers, sides.join("; "));
        changes.push(change("artifact", text));
    }
    for (name, how) in diff.environment.iter().take(NAMES_LISTED) {
        changes.push(change("artifact", format!("env {} {how}", clean_text(name, NAME_MAX))));
    }
    for (name, old, new) in diff.labels.iter().take(NAMES_LISTED) {
        changes.push(change("label", label_line(name, old.as_deref(), new.as_deref())));
    }
    let left_out = diff.environment.len().saturating_sub(NAMES_LISTED)
        + diff.labels.len().saturating_sub(NAMES_LISTED);
    if left_out > 0 {
        changes.push(change("label", format!("{left_out} more labels or env names differ")));
    }
    changes
}

fn label_line(name: &str, old: Option<&str>, new: Option<&str>) -> String {
    if name.starts_with(OCI_LABELS) {
        // A revision looks like a secret, and is none: it is not masked.
        let value = |it: Option<&str>| it.map_or("unset".to_owned(), clean_name);
        return format!("{}: {} -> {}", clean_name(name), value(old), value(new));
    }
    let how = match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    format!("{} {how}", clean_text(name, NAME_MAX))
}

fn list(layers: &[ImageLayer]) -> String {
    let named = layers.iter().take(LAYERS_LISTED).map(|layer| {
        let digest = layer.digest.to_string();
        let digits = digest.trim_start_matches("sha256:").get(..DIGITS_SHOWN).unwrap_or_default();
        layer.bytes.map_or(digits.to_owned(), |bytes| format!("{digits} ({bytes} bytes)"))
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    let surplus = layers.len().saturating_sub(LAYERS_LISTED);
    if surplus > 0 {
        text.push_str(&format!(", and {surplus} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_of_the_labels_of_the_oci_only_and_lists_are_bounded() {
        let label = |name: &str| (name.to_owned(), Some("hunter2".to_owned()), None);
        let layer = ImageLayer {
            digest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
            bytes: Some(10),
        };
        let diff = ImageDiff {
            layers_removed: vec![ImageLayer { bytes: None, ..layer.clone() }],
            layers_added: vec![layer; 8],
            layers: 9,
            labels: vec![label("x"), label("org.opencontainers.image.revision")],
            environment: (0..30).map(|it| (format!("NAME_{it}\u{1b}[1m"), "added")).collect(),
        };
        let lines: Vec<_> = lines(&diff).into_iter().map(|it| it.text).collect();
        assert!(lines[0].starts_with("8 of 9 layers differ: added abababababab (10 bytes), abab"));
        assert!(lines[0].ends_with(", and 2 more; removed abababababab"), "{}", lines[0]);
        assert_eq!(lines[1], "env NAME_0 added");
        let end = [
            "x removed",
            "org.opencontainers.image.revision: hunter2 -> unset",
            "10 more labels or env names differ",
        ];
        assert_eq!(lines[21..], end);
    }
}
