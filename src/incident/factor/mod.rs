//! Contributing factors: one rule a file. Each has a number, and the setting that it is about.

mod blocked;
mod forced;
mod late_acknowledgement;
mod long_drain;
mod no_comparison;
mod open_action;
mod pinned_sessions;
mod probe_coverage;
mod recurrence;
mod reload;
mod thin_traffic;

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::life::Incident;

/// A rule: the incident, its facts, and what they suggest.
type Rule = fn(&Context<'_>) -> Option<Offer>;

/// What a rule sees.
#[derive(Debug)]
pub struct Context<'a> {
    /// The facts.
    pub facts: &'a Facts,
    /// The incident.
    pub incident: &'a Incident,
    /// Action items of earlier incidents of this service that are still open: name and text.
    pub open_actions: &'a [(String, String)],
}

const RULES: [Rule; 11] = [
    recurrence::rule,
    open_action::rule,
    reload::rule,
    probe_coverage::rule,
    thin_traffic::rule,
    forced::rule,
    no_comparison::rule,
    blocked::rule,
    long_drain::rule,
    pinned_sessions::rule,
    late_acknowledgement::rule,
];

/// What let it happen, or made it worse; the heaviest first.
pub fn factors(context: &Context<'_>) -> Vec<Offer> {
    let mut offers: Vec<_> = RULES.iter().filter_map(|rule| rule(context)).collect();
    offers.sort_by_key(|offer| std::cmp::Reverse(offer.weight));
    offers
}

#[cfg(test)]
pub(super) fn check(rule: Rule, facts: &Facts) -> Option<Offer> {
    let incident = Incident::default();
    rule(&Context { facts, incident: &incident, open_actions: &[] })
}
