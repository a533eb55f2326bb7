//! The release never became ready.

use crate::incident::cause::was_aborted;
use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::model::TimelineEvent;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let failed = facts.find(|event| matches!(event, TimelineEvent::Failed))?;
    let refused = ["does not support", "--strict refuses it"];
    if was_aborted(&failed.because) || refused.iter().any(|it| failed.because.contains(it)) {
        return None;
    }
    let mut observation: String = failed.because.chars().take(240).collect();
    if let Some(group) = facts.output.iter().find(|it| it.is_error) {
        observation.push_str(&format!("; it printed \"{}\"", group.example));
    }
    let offer = Offer::new("does-not-start", 85, format!("{release} does not start"), observation);
    Some(offer.setting("start_timeout"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_reason_of_the_failed_start_is_the_observation() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        facts.timeline =
            example::failed_start("v2 never became ready: exit code 1; v1 kept the traffic");
        assert!(rule(&facts).unwrap().observation.contains("exit code 1"));
        facts.timeline =
            example::failed_start("v2 does not support 2025-03-26, which live sessions use");
        assert_eq!(rule(&facts), None);
    }
}
