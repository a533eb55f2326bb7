//! The release became slow.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::rows::verdict_of;

/// The interval that may hold both good and slow requests.
const SECOND_MS: u64 = 1_000;

/// Good answers of the release after the second in which the trouble began.
fn answered_since_onset(facts: &Facts) -> Option<u64> {
    let onset = verdict_of(facts)?.onset;
    let since = onset.0.saturating_sub(facts.traffic.as_ref()?.opened.0) + SECOND_MS;
    let late = facts.trial()?.series.iter().filter(|it| since <= it.ms);
    Some(late.map(|it| it.judged.saturating_sub(it.bad)).sum())
}

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
    let answered = answered_since_onset(facts);
    let hangs = answered.is_some_and(|it| it * 4 < slow);
    if let Some(answered) = answered.filter(|_| hangs) {
        observation.push_str(&format!("; {answered} were answered after it began"));
    }
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
    use crate::incident::traffic::Point;
    use crate::model::Counts;

    #[test]
    fn slow_requests_are_distinguished_from_requests_that_never_end() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::trial(&mut facts).counts =
            Counts { ok: 50, slow: 40, with_latency: 50, ..Counts::default() };
        assert_eq!(rule(&facts).unwrap().title, "v2 is slow");
        example::trial(&mut facts).counts =
            Counts { ok: 10, slow: 40, with_latency: 50, ..Counts::default() };
        example::trial(&mut facts).series =
            vec![Point { ms: 0, judged: 50, bad: 0 }, Point { ms: 4_000, judged: 8, bad: 8 }];
        assert_eq!(rule(&facts).unwrap().title, "requests to v2 do not end");
    }
}
