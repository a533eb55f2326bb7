//! One call fails, and the others work.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::traffic::bad;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let total: u64 = trial.calls.iter().map(|it| bad(&it.counts)).sum();
    let worst = trial.calls.first()?;
    let (failed, judged) = (bad(&worst.counts), worst.counts.judged());
    let others: u64 = trial.calls.iter().skip(1).map(|it| it.counts.judged()).sum();
    // Another call with its own traffic has to work, else it is not about this one.
    if failed < 3 || failed * 10 < total * 9 || others < 10 {
        return None;
    }
    let mut observation =
        format!("`{}` failed {failed} of {judged} times on {release}", worst.call);
    let control = facts.control().and_then(|it| it.calls.iter().find(|c| c.call == worst.call));
    if let Some((control, previous)) = control.zip(facts.previous_release()) {
        let (failed, judged) = (bad(&control.counts), control.counts.judged());
        observation.push_str(&format!(", {failed} of {judged} on {previous}"));
    }
    observation.push_str(&format!("; other calls failed {} of {others} times", total - failed));
    if let Some(sample) = facts.sample(Some(&worst.call)) {
        observation.push_str(&sample.answer());
    }
    if let Some(group) = facts.new_error() {
        observation.push_str(&format!("; new output: \"{}\"", group.example));
    }
    let title = format!("`{}` is broken in {release}", worst.call);
    Some(
        Offer::new("one-call", 88, title, observation)
            .action(format!("test `{}` before a deploy, and cover it in the probe", worst.call)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Counts;

    #[test]
    fn the_only_failing_call_is_named_with_the_other_release() {
        let mut facts = example::facts();
        let counts = Counts { server_fault: 38, ok: 2, ..Counts::default() };
        example::trial(&mut facts).calls.clear();
        example::set_call(&mut facts, "tools/call forecast", counts);
        assert_eq!(rule(&facts), None, "no other call");
        example::set_call(&mut facts, "tools/call alerts", Counts { ok: 50, ..Counts::default() });
        let offer = rule(&facts).unwrap();
        assert_eq!(offer.title, "`tools/call forecast` is broken in v2");
        assert!(offer.observation.contains("38 of 40 times on v2"), "{}", offer.observation);
        assert!(offer.observation.contains("other calls failed 0 of 50 times"));
        let counts = Counts { server_fault: 30, ..Counts::default() };
        example::set_call(&mut facts, "tools/call alerts", counts);
        assert_eq!(rule(&facts), None, "two calls fail");
    }
}
