//! Both releases fail: what they share is broken, not the deploy.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::traffic::bad;
use crate::model::{Guard, TimelineEvent};

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let (release, previous) = (facts.release()?, facts.previous_release()?);
    let blocked = facts
        .find(|event| matches!(event, TimelineEvent::Blocked { guard: Guard::SharedOutage, .. }))?;
    let mut observation: String = blocked.because.chars().take(240).collect();
    if let Some(control) = facts.control().filter(|it| it.counts.judged() > 0) {
        let (failed, judged) = (bad(&control.counts), control.counts.judged());
        observation.push_str(&format!("; {previous} failed {failed} of {judged} requests"));
    }
    let title = format!("something that {release} and {previous} both need is down");
    Some(Offer::new("shared-dependency", 94, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn a_shared_outage_is_not_the_deploy() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::block(&mut facts, Guard::SharedOutage);
        assert_eq!(rule(&facts).unwrap().title, "something that v2 and v1 both need is down");
    }
}
