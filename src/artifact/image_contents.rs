//! What an image consists of, as far as two images are compared: layers, labels, names of its environment.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::artifact::digest::Digest;
use crate::artifact::podman::Podman;

/// Layers of one image that are read; overlayfs cannot mount more than 500, and most builders stop at 127.
const LAYERS_MAX: usize = 512;
/// Labels and settings of one image that are read, in the order of their names.
const NAMES_MAX: usize = 1_000;

/// The layers, the labels and the environment of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageContents {
    /// The layers, the lowest first.
    pub layers: Vec<ImageLayer>,
    /// The labels. A value can be anything.
    pub labels: BTreeMap<String, String>,
    /// The names of the environment, with the hash of each value: a value can be a secret.
    pub environment: BTreeMap<String, ValueHash>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayer {
    /// The digest of its files, unpacked.
    pub digest: Digest,
    /// Its size in bytes; none where the image has no history that fits its layers.
    pub bytes: Option<u64>,
}

/// Tells values apart that no person may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueHash([u8; 32]);

/// How two images differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageDiff {
    /// Layers that only the first one has.
    pub layers_removed: Vec<ImageLayer>,
    /// Layers that only the second one has.
    pub layers_added: Vec<ImageLayer>,
    /// The layers of the larger one.
    pub layers: usize,
    /// Labels that differ: name, first value, second value.
    pub labels: Vec<(String, Option<String>, Option<String>)>,
    /// Names of the environment that differ, and how.
    pub environment: Vec<(String, &'static str)>,
}

/// The answer of `inspect`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    labels: Option<BTreeMap<String, String>>,
    config: Option<Config>,
    #[serde(rename = "RootFS")]
    root: Option<Root>,
    history: Option<Vec<Step>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    env: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Root {
    layers: Option<Vec<String>>,
}

/// A step of a build, in the configuration of the image (OCI image-spec, `history`).
#[derive(Debug, Deserialize)]
struct Step {
    #[serde(default)]
    empty_layer: bool,
}

/// A step of a build with its size, as `podman history` shows it: the newest first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SizedStep {
    size: u64,
}

impl Podman {
    /// What an image consists of; none where the store does not have it.
    ///
    /// # Errors
    /// podman does not answer, or not as expected.
    pub async fn image_contents(&self, name: &str) -> Result<Option<ImageContents>, String> {
        let Some(image) = self.get::<Inspected>(&format!("/{name}/json")).await? else {
            return Ok(None);
        };
        let sized = self.get::<Vec<SizedStep>>(&format!("/{name}/history")).await?;
        let config = image.config.unwrap_or_default();
        let layers = image.root.and_then(|it| it.layers).unwrap_or_default();
        let sizes = sizes(&image.history.unwrap_or_default(), &sized.unwrap_or_default());
        // Sizes that do not fit the layers say nothing about any of them.
        let sizes = sizes.filter(|it| it.len() == layers.len());
        let size = |at: usize| sizes.as_ref().and_then(|it| it.get(at).copied());
        let layers = layers.iter().take(LAYERS_MAX).enumerate().map(|(at, digest)| {
            Ok(ImageLayer { digest: digest.parse::<Digest>()?, bytes: size(at) })
        });
        Ok(Some(ImageContents {
            layers: layers.collect::<Result<_, String>>()?,
            labels: image.labels.unwrap_or_default().into_iter().take(NAMES_MAX).collect(),
            environment: environment(&config.env.unwrap_or_default()),
        }))
    }
}

/// The sizes of the layers, the lowest first; none where both histories have not the same steps.
fn sizes(steps: &[Step], sized: &[SizedStep]) -> Option<Vec<u64>> {
    let layers = steps.iter().zip(sized.iter().rev()).filter(|(step, _)| !step.empty_layer);
    (steps.len() == sized.len()).then(|| layers.map(|(_, it)| it.size).collect())
}

fn environment(settings: &[String]) -> BTreeMap<String, ValueHash> {
    let settings = settings.iter().take(NAMES_MAX).map(|it| {
        let (name, value) = it.split_once('=').unwrap_or((it, ""));
        (name.to_owned(), ValueHash(Sha256::digest(value).into()))
    });
    settings.collect()
}

impl ImageContents {
    /// What is different in `new`.
    pub fn diff(&self, new: &Self) -> ImageDiff {
        let only = |these: &[ImageLayer], others: &[ImageLayer]| -> Vec<ImageLayer> {
            let known: BTreeSet<_> = others.iter().map(|it| &it.digest).collect();
            these.iter().filter(|it| !known.contains(&it.digest)).cloned().collect()
        };
        let labels = names(&self.labels, &new.labels).into_iter().filter_map(|name| {
            let (old, new) = (self.labels.get(name), new.labels.get(name));
            (old != new).then(|| (name.clone(), old.cloned(), new.cloned()))
        });
        let environment = names(&self.environment, &new.environment).into_iter();
        let environment = environment.filter_map(|name| {
            let how = match (self.environment.get(name), new.environment.get(name)) {
                (None, _) => "added",
                (_, None) => "removed",
                (old, new) if old != new => "changed",
                _ => return None,
            };
            Some((name.clone(), how))
        });
        ImageDiff {
            layers_removed: only(&self.layers, &new.layers),
            layers_added: only(&new.layers, &self.layers),
            layers: self.layers.len().max(new.layers.len()),
            labels: labels.collect(),
            environment: environment.collect(),
        }
    }
}

fn names<'a, T>(
    old: &'a BTreeMap<String, T>,
    new: &'a BTreeMap<String, T>,
) -> BTreeSet<&'a String> {
    old.keys().chain(new.keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_steps_that_made_a_layer() {
        let step = |empty_layer| Step { empty_layer };
        let sized = |size| SizedStep { size };
        let steps = [step(false), step(true), step(false)];
        assert_eq!(sizes(&steps, &[sized(7), sized(0), sized(9)]), Some(vec![9, 7]));
        assert_eq!(sizes(&steps, &[sized(7), sized(9)]), None);
    }

    #[test]
    fn no_value_of_the_environment_is_kept() {
        let kept = environment(&["TOKEN=hunter2=x".into(), "EMPTY".into()]);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["EMPTY", "TOKEN"]);
        assert!(!format!("{kept:?}").contains("hunter2"));
    }
}
