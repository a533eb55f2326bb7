//! Too few requests to find it earlier.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::incident::utc::format_ms;
use crate::model::{TimelineEvent, Trigger};

/// Below this rate, evidence is a matter of minutes.
const RATE_MAX: f64 = 5.0;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let facts = context.facts;
    let detected = facts.find(|event| matches!(event, TimelineEvent::Detected { .. }))?;
    let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } = &detected.event else {
        return None;
    };
    let waited = detected.moment.since(verdict.onset);
    if verdict.request_rate >= RATE_MAX || waited.as_secs() < 15 {
        return None;
    }
    let waited = format_ms(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
    let observation = format!(
        "{:.1} requests a second: the evidence took {waited} from the onset",
        verdict.request_rate
    );
    let title = "the traffic was thin".to_owned();
    Some(
        Offer::new("thin-traffic", 45, title, observation)
            .setting("shadow_calls, [service.NAME.probe]")
            .action("add a probe that makes real calls, so that thin traffic is no limit"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::model::Moment;

    #[test]
    fn a_slow_verdict_on_few_requests_is_thin_traffic() {
        let mut facts = example::facts();
        assert_eq!(super::super::check(rule, &facts), None, "50 requests a second");
        if let TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } =
            &mut facts.timeline[3].event
        {
            verdict.request_rate = 0.4;
            verdict.onset = Moment(example::BEGAN - 60_000);
        }
        let offer = super::super::check(rule, &facts).unwrap();
        assert!(offer.observation.starts_with("0.4 requests a second"), "{}", offer.observation);
    }
}
