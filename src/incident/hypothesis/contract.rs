//! The release dropped or changed what clients use.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::text::{clean_name, clean_text};
use crate::model::TimelineEvent;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let diff = facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Ready { changes: Some(changes), .. } => Some(changes),
        _ => None,
    })?;
    let most_used = diff.breaking.iter().max_by_key(|it| it.calls)?;
    let breaking = diff.breaking_summary();
    // A change of a call that did not fail explains nothing.
    let ends = |call: &str| call.rsplit(' ').next() == Some(most_used.name.as_str());
    let of_call = facts.trial().and_then(|it| it.calls.iter().find(|it| ends(&it.call)));
    let failing = of_call.is_some_and(|it| {
        it.counts.client_fault + it.counts.tool_fault + it.counts.server_fault > 0
    });
    let call = of_call.map(|it| it.call.clone());
    let changed = diff.changed.get(&most_used.part).and_then(|it| it.get(&most_used.name));
    let name = clean_name(&most_used.name);
    let how = changed.map_or(most_used.change.clone(), |it| clean_text(it, 120));
    let title =
        format!("the contract of {release} breaks its clients: {} {name}: {how}", most_used.part);
    let mut observation = breaking;
    if let Some(sample) = call.as_deref().and_then(|call| facts.sample(Some(call))) {
        observation.push_str(&sample.answer());
    }
    let offer = Offer::new("contract", if failing { 92 } else { 30 }, title, observation);
    Some(
        offer
            .setting("deploy --strict")
            .action("deploy with --strict, which refuses a contract that breaks clients"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Counts;

    #[test]
    fn a_required_argument_that_fails_calls_ranks_high() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::require_city(&mut facts);
        example::set_call(&mut facts, "tools/call forecast", Counts { ok: 9, ..Counts::default() });
        assert_eq!(rule(&facts).unwrap().weight, 30, "no call failed");
        let counts = Counts { client_fault: 40, ok: 3, ..Counts::default() };
        example::set_call(&mut facts, "tools/call forecast", counts);
        let offer = rule(&facts).unwrap();
        assert_eq!(offer.weight, 92);
        assert!(offer.observation.contains("requires `city`"), "{}", offer.observation);
    }
}
