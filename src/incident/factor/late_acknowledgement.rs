//! The page waited for a person.

use crate::incident::document::Offer;
use crate::incident::factor::Context;
use crate::incident::utc::format_ms;

/// A page that is acknowledged within this time is no factor.
const WAIT_MS_MIN: u64 = 5 * 60 * 1000;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let incident = context.incident;
    let (paged, ..) = incident
        .causes
        .iter()
        .find(|(cause, ..)| cause.needs_person())
        .map(|(_, paged, because)| (*paged, because))?;
    let (acknowledged, _) = incident.acknowledged.as_ref()?;
    let waited = acknowledged.0.saturating_sub(paged.0);
    if waited < WAIT_MS_MIN {
        return None;
    }
    let waited = format_ms(waited);
    let title = format!("the page was acknowledged after {waited}");
    let observation = format!(
        "{} channels had accepted it before",
        incident.notified.iter().filter(|(at, ..)| at <= acknowledged).count()
    );
    Some(Offer::new("late-acknowledgement", 50, title, observation).setting("[notify.NAME]"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::cause::Cause;
    use crate::incident::example;
    use crate::incident::life::Incident;
    use crate::incident::record::Author;
    use crate::model::Moment;

    #[test]
    fn forty_minutes_are_late() {
        let facts = example::facts();
        let by = Author { uid: 1, name: String::new() };
        let mut incident = Incident {
            causes: vec![(Cause::GuardHeld, Moment(0), String::new())],
            acknowledged: Some((Moment(41 * 60_000), by.clone())),
            ..Incident::default()
        };
        let offer = rule(&Context { facts: &facts, incident: &incident, open_actions: &[] });
        assert_eq!(offer.unwrap().title, "the page was acknowledged after 41 min");
        incident.acknowledged = Some((Moment(60_000), by));
        assert_eq!(rule(&Context { facts: &facts, incident: &incident, open_actions: &[] }), None);
    }
}
