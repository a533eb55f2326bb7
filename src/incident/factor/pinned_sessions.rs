//! Sessions ended, because they could not move.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::model::TimelineEvent;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let cost = context.facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Drained { cost } | TimelineEvent::Cut { cost } => Some(cost),
        _ => None,
    })?;
    let kept: u64 = cost.sessions_not_migrated.values().sum();
    if kept + cost.sessions_ended == 0 {
        return None;
    }
    let why: Vec<_> = cost
        .sessions_not_migrated
        .iter()
        .map(|(refusal, count)| format!("{count} ({})", refusal.label()))
        .collect();
    let mut observation = format!("{} sessions ended", cost.sessions_ended);
    if !why.is_empty() {
        observation.push_str(&format!("; not migrated: {}", why.join(", ")));
    }
    let title = "sessions could not move".to_owned();
    Some(Offer::new("pinned-sessions", 55, title, observation).setting("session_state"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn ended_sessions_are_counted() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        if let TimelineEvent::Drained { cost } = &mut facts.timeline[6].event {
            cost.sessions_ended = 4;
        }
        let offer = super::super::check(rule, &facts).unwrap();
        assert_eq!(offer.observation, "4 sessions ended");
    }
}
