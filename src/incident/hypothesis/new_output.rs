//! The release prints what the previous one never did.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let group = facts.new_error()?;
    let previous = facts.previous_release()?;
    let observation = format!("{} x \"{}\"", group.count, group.example);
    let title = format!("{release} prints an error that {previous} did not print");
    Some(Offer::new("new-output", 60, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::incident::facts::OutputGroup;

    #[test]
    fn the_first_new_error_is_shown() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let group = |count, is_new, is_error| OutputGroup {
            template: "KeyError: <*>".into(),
            count,
            is_new,
            is_error,
            example: "KeyError: region".into(),
        };
        facts.output = vec![group(90, true, false), group(14, true, true), group(2, true, true)];
        assert_eq!(rule(&facts).unwrap().observation, "14 x \"KeyError: region\"");
    }
}
