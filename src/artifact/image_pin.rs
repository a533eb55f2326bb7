use crate::artifact::podman::Podman;
use crate::artifact::reference::Reference;
use crate::model::ReleaseNumber;

/// All pins are tags of this name, so that nobody takes them for images of their own.
const PIN_REPOSITORY: &str = "localhost/rollbackd";

impl Podman {
    /// Pins the image of a deploy with a tag, `localhost/rollbackd:deploy-NUMBER-of-SERVICE`. Again is
    /// the same as once.
    ///
    /// A pinned image outlives `podman image prune`, and a tag of the same name that moves on.
    /// `podman image prune --all` and `podman rmi` take it nevertheless, unless there is a container
    /// of it, even a stopped one: then it stays. `podman untag IMAGE` takes all names of an image,
    /// its pins too.
    ///
    /// # Errors
    /// There is no such image, or podman does not do it: why, in a whole sentence.
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
        Err(format!("{image} can not be kept: it is not in podman's store any more"))
    }

    /// Lets go the pins of a service, all but those of `keep`, and tells which. An image whose last
    /// tag that was is nameless from then on and goes with the next `podman image prune`; none is
    /// removed here.
    ///
    /// # Errors
    /// Podman does not do it: why, in a whole sentence. Some may be let go already.
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
            // Not there any more is as good.
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

/// The number of a pin of that service. Only what we would write ourselves is one.
fn parse_pin_tag(text: &str, service: &str) -> Option<ReleaseNumber> {
    let rest = text.strip_prefix(PIN_REPOSITORY)?.strip_prefix(":deploy-")?;
    let number = ReleaseNumber(rest.split_once("-of-")?.0.parse().ok()?);
    (text == format!("{PIN_REPOSITORY}:{}", pin_tag(service, number))).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_of_the_service_are_pins_of_it() {
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
