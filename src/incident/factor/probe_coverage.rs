//! Requests found it while the probes passed.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::incident::traffic::bad;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let facts = context.facts;
    let (release, trial) = (facts.release()?, facts.trial()?);
    let (passed, failed, _) = trial.probes;
    if passed < 3 || failed > 0 || bad(&trial.counts) + trial.counts.client_fault == 0 {
        return None;
    }
    let call = trial.calls.first().map(|it| it.call.as_str()).unwrap_or_default();
    let failures = bad(&trial.counts);
    let kind = facts.setting("probe.kind").unwrap_or("mcp");
    let observation = format!(
        "{passed} of {passed} probes of {release} passed while clients met {failures} faults; \
         the probe (kind = \"{kind}\") does not cover `{call}`"
    );
    let title = "the probes stayed green".to_owned();
    Some(
        Offer::new("probe-coverage", 60, title, observation)
            .setting("[service.NAME.probe] kind, command")
            .action(format!(
                "let the probe call `{call}`: kind = \"command\" with a program that does"
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn green_probes_beside_faults_are_a_gap() {
        let mut facts = example::facts();
        let offer = super::super::check(rule, &facts).unwrap();
        assert!(offer.observation.contains("8 of 8 probes of v2 passed"), "{}", offer.observation);
        example::trial(&mut facts).probes = (8, 1, Vec::new());
        assert_eq!(super::super::check(rule, &facts), None);
    }
}
