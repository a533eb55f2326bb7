//! The deploy overrode a guard.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::model::TimelineEvent;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let deployed = context.facts.timeline.iter().find_map(|entry| match &entry.event {
        TimelineEvent::Deployed { forced, frozen, waived, .. } => Some((*forced, *frozen, waived)),
        _ => None,
    })?;
    let waived = "the guards that would have stopped it did not apply";
    let (option, effect) = match deployed {
        (_, _, needed) if !needed.is_empty() => {
            let options: Vec<_> = needed.iter().map(|waiver| waiver.option()).collect();
            (options.join(", "), waived)
        }
        (true, ..) => ("--force or --allow-version-drop".to_owned(), waived),
        (false, true, _) => ("--freeze".to_owned(), "the daemon was not allowed to roll back"),
        (false, false, _) => return None,
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
    use crate::model::Waiver;

    #[test]
    fn the_option_is_the_factor() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        example::set_forced(&mut facts);
        let title = super::super::check(rule, &facts).unwrap().title;
        assert_eq!(title, "the deploy used --force or --allow-version-drop");
        example::set_waived(&mut facts, &[Waiver::OverBreach, Waiver::WithoutNet]);
        let title = super::super::check(rule, &facts).unwrap().title;
        assert_eq!(title, "the deploy used --over-breach, --without-net");
    }
}
