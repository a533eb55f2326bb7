//! The release answers, but with far less content than the one before, or far slower.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::text::clean_text;
use crate::model::{Finding, ObjectiveNumbers};

/// Longest observation, in characters.
const TEXT_MAX: usize = 200;
/// How the names of these objectives begin ([`crate::judge`]).
const SMALL: &str = "small answers of ";
const SLOWER: &str = "slower answers of ";

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let verdicts = facts.timeline.iter().rev().filter_map(|entry| entry.event.verdict());
    let verdict = verdicts.into_iter().find(|it| it.finding != Finding::NoData)?;
    let ObjectiveNumbers { name, .. } = verdict.basis.as_ref()?.objective.as_ref()?;
    let (title, action) = if let Some(call) = name.strip_prefix(SMALL) {
        (
            format!("{call} of {release} finds nothing, or leaves out what it found before"),
            "compare an answer of both releases: data source, rights and defaults of the query",
        )
    } else {
        let call = name.strip_prefix(SLOWER)?;
        (
            format!("{call} of {release} waits for something, or does far more"),
            "profile the call on both releases: connections, caches and the queries behind it",
        )
    };
    let observation = clean_text(&verdict.because, TEXT_MAX);
    Some(Offer::new("different-answers", 91, title, observation).action(action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_call_and_what_differs_are_named() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        for (what, title) in [
            ("small answers of tools/call search", "tools/call search of v2 finds nothing"),
            ("slower answers of tools/call search", "tools/call search of v2 waits"),
        ] {
            example::answer_differently(&mut facts, what);
            let offer = rule(&facts).unwrap();
            assert!(offer.title.starts_with(title), "{}", offer.title);
            assert!(offer.observation.contains("45 of 50"), "{}", offer.observation);
        }
    }
}
