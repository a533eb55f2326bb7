//! The release stopped answering: probes time out or are refused, too.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let (passed, failed, words) = &trial.probes;
    if *failed < 2 || trial.exits.0 > 0 {
        return None;
    }
    let words = words.first()?;
    let total = passed + failed;
    let control = facts.control().map(|it| it.probes.1).unwrap_or_default();
    let beside = match (facts.previous_release(), control) {
        (Some(previous), 0) => format!("; every probe of {previous} passed in the same time"),
        _ => String::new(),
    };
    let mut observation = format!("{failed} of {total} probes failed: {words}{beside}");
    let answers = |it: &String| it != "no answer in time" && it != "connection refused";
    let title = match trial.probes.2.iter().any(answers) {
        true => format!("{release} answers with errors, also to its probes"),
        false => format!("{release} stopped answering: its probes fail, too"),
    };
    if let Some(sample) = facts.sample(None) {
        observation.push_str(&sample.answer());
    }
    Some(Offer::new("no-answer", 80, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn failed_probes_without_an_exit_mean_no_answer() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::trial(&mut facts).probes = (4, 3, vec!["no answer in time".to_owned()]);
        let offer = rule(&facts).unwrap();
        assert!(offer.observation.starts_with("3 of 7 probes failed: no answer in time"));
        example::trial(&mut facts).exits = (1, vec!["exit code 1".to_owned()]);
        assert_eq!(rule(&facts), None, "a crash explains it better");
    }
}
