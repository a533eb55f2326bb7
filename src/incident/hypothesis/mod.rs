//! Possible causes: one rule a file. A rule states only what the facts show, with the observation.

mod contract;
mod different_answers;
mod does_not_start;
mod every_call;
mod exits;
mod memory;
mod new_output;
mod no_answer;
mod one_call;
mod one_user;
mod rejected_calls;
mod shared_dependency;
mod slow;
mod some_calls;
mod tool_errors;

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

/// Hypotheses that a document shows.
const OFFERS_MAX: usize = 5;

/// A rule: the facts, and what they suggest.
type Rule = fn(&Facts) -> Option<Offer>;

const RULES: [Rule; 15] = [
    memory::rule,
    exits::rule,
    does_not_start::rule,
    no_answer::rule,
    contract::rule,
    rejected_calls::rule,
    one_user::rule,
    different_answers::rule,
    one_call::rule,
    every_call::rule,
    some_calls::rule,
    tool_errors::rule,
    slow::rule,
    shared_dependency::rule,
    new_output::rule,
];

/// What could have caused it, the most likely first.
pub fn hypotheses(facts: &Facts) -> Vec<Offer> {
    let mut offers: Vec<_> = RULES.iter().filter_map(|rule| rule(facts)).collect();
    offers.sort_by_key(|offer| std::cmp::Reverse(offer.weight));
    offers.truncate(OFFERS_MAX);
    offers
}
