//! The deploy overrode a guard.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::model::TimelineEvent;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let (forced, frozen) = context.facts.timeline.iter().find_map(|entry| match entry.event {
        TimelineEvent::Deployed { forced, frozen, .. } => Some((forced, frozen)),
        _ => None,
    })?;
    let (option, effect) = match (forced, frozen) {
        (true, _) => ("--force", "the guards that would have stopped it did not apply"),
        (false, true) => ("--freeze", "the daemon was not allowed to roll back"),
        (false, false) => return None,
    };
    let title = format!("the deploy used {option}");
    let observation = format!("deploy {option}: {effect}");
    Some(
        Offer::new("forced", 50, title, observation)
            .setting(format!("deploy {option}"))
            .action(format!("find what made {option} necessary, and remove the need for it")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_option_is_the_factor() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        example::set_forced(&mut facts);
        assert_eq!(super::super::check(rule, &facts).unwrap().title, "the deploy used --force");
    }
}
