//! The drain took long.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::incident::utc::format_ms;
use crate::model::TimelineEvent;

/// A drain below this is part of every rollback.
const DRAIN_MS_MIN: u64 = 5_000;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let facts = context.facts;
    let decided = facts.find(|event| matches!(event, TimelineEvent::Decided { .. }))?;
    let drained = facts
        .find(|event| matches!(event, TimelineEvent::Drained { .. } | TimelineEvent::Cut { .. }))?;
    let waited = drained.since_deploy_ms.saturating_sub(decided.since_deploy_ms);
    if waited < DRAIN_MS_MIN {
        return None;
    }
    let load = facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Detected { load, .. } => Some(load.in_flight),
        _ => None,
    });
    let open = load.unwrap_or_default();
    let limit = facts.setting("drain_timeout").unwrap_or("30s");
    let waited = format_ms(waited);
    let title = format!("the drain took {waited}");
    let observation = format!("{open} open requests at its start; the limit is {limit}");
    Some(Offer::new("long-drain", 35, title, observation).setting("drain_timeout, session_cost"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn a_drain_of_seconds_is_a_factor() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        facts.timeline[6].since_deploy_ms += 12_000;
        let offer = super::super::check(rule, &facts).unwrap();
        assert_eq!(offer.title, "the drain took 12 s");
        assert!(offer.observation.starts_with("3 open requests"), "{}", offer.observation);
    }
}
