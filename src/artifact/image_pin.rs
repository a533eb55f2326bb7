//! Pins: tags that keep the images of recent deploys in podman's store.

use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::model::ReleaseNumber;

/// All pins have this name, so that operators recognise them.
const PIN_REPOSITORY: &str = "localhost/rollbackd";

impl Podman {
    /// Pins the image of a deploy with the tag `localhost/rollbackd:deploy-NUMBER-of-SERVICE`.
    /// Idempotent.
    ///
    /// `podman image prune` keeps a pinned image, also after another tag of it moved. `podman image
    /// prune --all` and `podman rmi` remove it unless a container uses it, even a stopped one.
    /// `podman untag IMAGE` removes all names of an image, including its pins.
    ///
    /// # Errors
    /// The image does not exist, or podman rejects the request; the reason is a whole sentence.
    pub async fn pin(
        &self,
        service: &str,
        number: ReleaseNumber,
        image: &str,
    ) -> Result<(), String> {
        let image = Reference::parse(image)?.to_string();
        if self.change_tag("tag", &image, PIN_REPOSITORY, &pin_tag(service, number)).await? {
            return Ok(());
        }
        Err(format!("{image} cannot be kept: it is no longer in podman's store"))
    }

    /// Removes the pins of a service except those of `keep`, and returns the removed ones. This
    /// removes no image: an image without a tag goes with the next `podman image prune`.
    ///
    /// # Errors
    /// Podman rejects a request; the reason is a whole sentence. Some pins may be gone already.
    pub async fn unpin_except(
        &self,
        service: &str,
        keep: &[ReleaseNumber],
    ) -> Result<Vec<ReleaseNumber>, String> {
        let images = self.images_tagged(PIN_REPOSITORY).await?;
        let tags = images.iter().flat_map(|image| image.repo_tags.iter().flatten());
        let mut numbers: Vec<_> = tags.filter_map(|tag| parse_pin_tag(tag, service)).collect();
        numbers.retain(|number| !keep.contains(number));
        numbers.sort_unstable();
        for number in &numbers {
            let tag = pin_tag(service, *number);
            // A tag that does not exist needs no removal.
            _ = self
                .change_tag("untag", &format!("{PIN_REPOSITORY}:{tag}"), PIN_REPOSITORY, &tag)
                .await?;
        }
        Ok(numbers)
    }
}

fn pin_tag(service: &str, number: ReleaseNumber) -> String {
    format!("deploy-{number}-of-{service}")
}

/// The number in a pin of that service. Only a text that [`pin_tag`] would produce is a pin.
fn parse_pin_tag(text: &str, service: &str) -> Option<ReleaseNumber> {
    let rest = text.strip_prefix(PIN_REPOSITORY)?.strip_prefix(":deploy-")?;
    let number = ReleaseNumber(rest.split_once("-of-")?.0.parse().ok()?);
    (text == format!("{PIN_REPOSITORY}:{}", pin_tag(service, number))).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_pins_of_the_service_are_parsed() {
        let of = |text: &str| parse_pin_tag(text, "a-of-b");
        assert_eq!(of("localhost/rollbackd:deploy-7-of-a-of-b"), Some(ReleaseNumber(7)));
        for other in [
            "localhost/rollbackd:deploy-7-of-a",
            "localhost/rollbackd:deploy-7-of-a-of-b-of-c",
            "localhost/rollbackd:deploy-07-of-a-of-b",
            "localhost/rollbackd:deploy-+7-of-a-of-b",
            "localhost/rollbackd:deploy-5000000000-of-a-of-b",
            "localhost/rollbackd:latest",
            "example.org/localhost/rollbackd:deploy-7-of-a-of-b",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
