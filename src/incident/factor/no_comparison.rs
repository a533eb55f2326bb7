//! The previous release had no traffic to compare with.

use crate::incident::document::Offer;
use crate::incident::factor::Context;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let facts = context.facts;
    facts.trial()?;
    let previous = facts.previous_release()?;
    let control = facts.control();
    let requests = control.map(|it| it.counts.judged()).unwrap_or_default();
    let shadow = control.map(|it| it.shadow.0).unwrap_or_default();
    if requests + shadow > 0 {
        return None;
    }
    let observation = format!(
        "{previous} served 0 requests and 0 shadow calls during the bake: only its probes could show \
         that the deploy is to blame"
    );
    let title = "there was nothing to compare with".to_owned();
    Some(
        Offer::new("no-comparison", 40, title, observation)
            .setting("shadow_calls, repeatable_tools, baseline")
            .action("name tools that are safe to repeat in repeatable_tools"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::ReleaseNumber;

    #[test]
    fn a_silent_previous_release_is_a_factor() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        facts.traffic.as_mut().unwrap().releases.retain(|it| it.release != ReleaseNumber(1));
        assert!(super::super::check(rule, &facts).is_some());
    }
}
