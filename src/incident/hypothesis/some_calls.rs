//! A share of the requests fails, over several calls.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::traffic::bad;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let (failed, judged) = (bad(&trial.counts), trial.counts.judged());
    if failed < 3 {
        return None;
    }
    let share = 100.0 * failed as f64 / judged.max(1) as f64;
    let calls: Vec<_> = trial
        .calls
        .iter()
        .filter(|it| bad(&it.counts) > 0)
        .take(3)
        .map(|it| format!("`{}` {} of {}", it.call, bad(&it.counts), it.counts.judged()))
        .collect();
    let mut observation = format!("{failed} of {judged} requests failed ({share:.1} %)");
    if !calls.is_empty() {
        observation.push_str(&format!(": {}", calls.join(", ")));
    }
    if let Some(control) = facts.control().filter(|it| it.counts.judged() > 0) {
        let (failed, judged) = (bad(&control.counts), control.counts.judged());
        observation.push_str(&format!("; the previous release: {failed} of {judged}"));
    }
    if let Some(sample) = facts.sample(None) {
        observation.push_str(&sample.answer());
    }
    let title = format!("{release} fails a share of its requests since the deploy");
    Some(Offer::new("some-calls", 50, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn the_share_is_shown() {
        let mut facts = example::facts();
        let offer = rule(&facts).unwrap();
        assert!(offer.observation.starts_with("62 of 318 requests failed (19.5 %)"));
        example::trial(&mut facts).counts.server_fault = 2;
        assert_eq!(rule(&facts), None);
    }
}
