//! The server works, and its tools return errors: what they depend on fails.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let (tool, server) = (trial.counts.tool_fault, trial.counts.server_fault);
    if tool < 3 || tool < server * 4 {
        return None;
    }
    let calls: Vec<_> = trial
        .calls
        .iter()
        .filter(|it| it.counts.tool_fault > 0)
        .take(3)
        .map(|it| format!("`{}` {} of {}", it.call, it.counts.tool_fault, it.counts.judged()))
        .collect();
    let mut observation = format!("{tool} tool calls returned isError: {}", calls.join(", "));
    if let Some(sample) = facts.sample(None) {
        observation.push_str(&sample.answer());
    }
    let title = format!("the tools of {release} return errors; the server itself answers");
    Some(Offer::new("tool-errors", 82, title, observation).setting("tool_objective"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Counts;

    #[test]
    fn tool_faults_without_server_faults_are_about_the_tools() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let counts = Counts { tool_fault: 30, ok: 10, ..Counts::default() };
        example::trial(&mut facts).counts = counts;
        example::set_call(&mut facts, "tools/call forecast", counts);
        assert!(rule(&facts).unwrap().observation.contains("`tools/call forecast` 30 of 40"));
    }
}
