//! One user fails, and all others are served.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::text::clean_text;
use crate::model::{Guard, TimelineEvent};

/// Longest observation, in characters.
const TEXT_MAX: usize = 200;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    // A verdict that came later is about more than this user.
    let last = facts.timeline.iter().rev().find(|entry| entry.event.verdict().is_some())?;
    let TimelineEvent::Blocked { guard: Guard::OneUser, verdict } = &last.event else {
        return None;
    };
    let title = format!("what one user sends, or only that user has, fails on {release}");
    let observation = clean_text(&verdict.because, TEXT_MAX);
    let action = "repeat the calls of that user on the previous release";
    Some(Offer::new("one-user", 92, title, observation).action(action))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn only_what_is_of_one_user_until_the_end_is_offered() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let rolled_back = facts.timeline.split_off(3);
        facts.timeline.extend(rolled_back.clone());
        example::fail_for_one_user(&mut facts);
        let offer = rule(&facts).unwrap();
        assert!(offer.observation.contains("12 of 40 of one user"), "{}", offer.observation);
        facts.timeline.extend(rolled_back);
        assert_eq!(rule(&facts), None, "others failed later");
    }
}
