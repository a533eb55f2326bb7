//! A guard held the rollback back.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::model::{Guard, TimelineEvent};

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let (guard, setting, entry) = context.facts.timeline.iter().find_map(|entry| {
        let TimelineEvent::Blocked { guard, .. } = &entry.event else { return None };
        Some((*guard, setting(*guard)?, entry))
    })?;
    let title = format!("the guard \"{guard}\" held the rollback back");
    let observation: String = entry.because.chars().take(200).collect();
    Some(Offer::new("blocked", 65, title, observation).setting(setting))
}

/// What an operator chose. None: the guard holds no breach back, or is no choice.
fn setting(guard: Guard) -> Option<&'static str> {
    Some(match guard {
        Guard::Observe => "mode",
        Guard::Hold => "rollbackd hold",
        Guard::Freeze => "deploy --freeze",
        Guard::Limit => "rollbacks_per_day",
        Guard::NoBaseline => "baseline",
        Guard::AfterBake => "after_bake",
        Guard::Differs => "shape",
        Guard::Ramp | Guard::SharedOutage | Guard::NoData | Guard::NoWarm | Guard::OneUser => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn a_hold_is_named_with_its_verb() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None);
        example::block(&mut facts, Guard::Hold);
        let offer = super::super::check(rule, &facts).unwrap();
        assert_eq!(offer.setting.as_deref(), Some("rollbackd hold"));
    }
}
