//! The same incident happened before.

use crate::incident::document::Offer;
use crate::incident::factor::Context;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let earlier = &context.incident.recurrence_of;
    let last = earlier.first()?;
    let count = earlier.len();
    let unit = if count == 1 { "incident" } else { "incidents" };
    let title = format!("it happened before: incident {last}");
    let observation =
        format!("{count} earlier {unit} with the same signature: {}", context.incident.signature);
    Some(
        Offer::new("recurrence", 95, title, observation)
            .action(format!("find out why the actions of incident {last} did not prevent it")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::incident::life::Incident;
    use crate::model::ReleaseNumber;

    #[test]
    fn earlier_incidents_are_named() {
        let facts = example::facts();
        let recurrence_of = vec![ReleaseNumber(37), ReleaseNumber(12)];
        let incident = Incident { recurrence_of, ..Incident::default() };
        let context = Context { facts: &facts, incident: &incident, open_actions: &[] };
        assert_eq!(rule(&context).unwrap().title, "it happened before: incident 37");
        assert_eq!(super::super::check(rule, &facts), None);
    }
}
