//! The release rejects calls that the previous one took.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

/// Rejected calls below this are noise of clients.
const REJECTED_MIN: u64 = 5;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let trial = facts.trial()?;
    let call = trial.calls.iter().max_by_key(|it| it.counts.client_fault)?;
    let (rejected, total) = (call.counts.client_fault, call.counts.total());
    if rejected < REJECTED_MIN || rejected * 2 < total {
        return None;
    }
    let observation = format!("{release} rejected {rejected} of {total} calls of {}", call.call);
    let title = format!("{release} no longer takes `{}` as clients send it", call.call);
    Some(Offer::new("rejected-calls", 75, title, observation).setting("client_faults"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Counts;

    #[test]
    fn mostly_rejected_calls_are_named() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let counts = Counts { client_fault: 40, ok: 3, ..Counts::default() };
        example::set_call(&mut facts, "tools/call forecast", counts);
        assert!(rule(&facts).unwrap().observation.contains("40 of 43"));
    }
}
