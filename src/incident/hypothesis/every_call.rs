//! Every request fails.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;
use crate::incident::traffic::bad;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    // The trial may have worked first: what counts is the last third of the time.
    let from = trial.series.len() - trial.series.len().div_ceil(3);
    let late = trial.series.iter().skip(from);
    let (judged, failed) = late.fold((0, 0), |(n, k), it| (n + it.judged, k + it.bad));
    if judged < 3 || failed * 20 < judged * 17 {
        return None;
    }
    let mut observation = format!("{failed} of the last {judged} requests to {release} failed");
    let calls = trial.calls.iter().filter(|it| bad(&it.counts) > 0).count();
    if calls > 1 {
        observation.push_str(&format!(", over {calls} calls"));
    }
    if let Some(sample) = facts.sample(None) {
        observation.push_str(&sample.answer());
    }
    let title = format!("{release} fails every request, not one call");
    Some(Offer::new("every-call", 78, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::incident::traffic::Point;

    #[test]
    fn a_total_failure_is_seen_after_a_good_start() {
        let mut facts = example::facts();
        let point = |ms, judged, bad| Point { ms, judged, bad };
        example::trial(&mut facts).series =
            vec![point(0, 50, 0), point(1_000, 50, 2), point(2_000, 40, 40)];
        assert!(rule(&facts).unwrap().observation.starts_with("40 of the last 40 requests"));
        example::trial(&mut facts).series = vec![point(0, 50, 0), point(2_000, 40, 8)];
        assert_eq!(rule(&facts), None);
    }
}
