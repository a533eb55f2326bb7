//! The release became slow.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let (slow, timed) = (trial.counts.slow, trial.counts.with_latency);
    if slow < 3 || slow * 5 < timed {
        return None;
    }
    let mut observation = format!("{slow} of {timed} requests took longer than the latency limit");
    if let Some(control) = facts.control().filter(|it| it.counts.with_latency > 0) {
        let counts = control.counts;
        let (slow, timed) = (counts.slow, counts.with_latency);
        observation.push_str(&format!("; the previous release: {slow} of {timed}"));
    }
    let hangs = facts.trial().is_some_and(|it| it.counts.server_fault * 2 > slow);
    let (title, weight) = match hangs {
        true => (format!("requests to {release} do not end"), 79),
        false => (format!("{release} is slow"), 81),
    };
    Some(Offer::new("slow", weight, title, observation).setting("latency"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Counts;

    #[test]
    fn slow_requests_are_distinguished_from_requests_that_never_end() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::trial(&mut facts).counts =
            Counts { ok: 50, slow: 40, with_latency: 50, ..Counts::default() };
        assert_eq!(rule(&facts).unwrap().title, "v2 is slow");
        example::trial(&mut facts).counts =
            Counts { server_fault: 40, slow: 40, with_latency: 50, ..Counts::default() };
        assert_eq!(rule(&facts).unwrap().title, "requests to v2 do not end");
    }
}
