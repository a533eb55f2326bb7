//! An action item of an earlier incident is still open.

use crate::incident::document::Offer;
use crate::incident::factor::Context;

pub(super) fn rule(context: &Context<'_>) -> Option<Offer> {
    let (name, text) = context.open_actions.first()?;
    let count = context.open_actions.len();
    let unit = if count == 1 { "action item" } else { "action items" };
    let title = format!("action item {name} is still open");
    let observation = format!("{count} open {unit} of earlier incidents, the first: {text}");
    Some(Offer::new("open-action", 70, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::incident::life::Incident;

    #[test]
    fn an_open_item_is_a_factor() {
        let (facts, incident) = (example::facts(), Incident::default());
        let open_actions = &[("37-2".to_owned(), "cover forecast in the probe".to_owned())];
        let context = Context { facts: &facts, incident: &incident, open_actions };
        assert_eq!(rule(&context).unwrap().title, "action item 37-2 is still open");
    }
}
