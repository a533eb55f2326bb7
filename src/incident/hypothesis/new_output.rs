//! The release prints what the previous one never did.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let group = facts.output.iter().filter(|group| group.is_new).max_by_key(|group| group.count)?;
    let observation = format!("{} x \"{}\"", group.count, group.example);
    let title = format!("{release} reports an error that the previous release never printed");
    Some(Offer::new("new-output", 60, title, observation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;
    use crate::incident::facts::OutputGroup;

    #[test]
    fn the_most_frequent_new_line_is_shown() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let group = |count, is_new| OutputGroup {
            template: "KeyError: <*>".into(),
            count,
            is_new,
            example: "KeyError: region".into(),
        };
        facts.output = vec![group(90, false), group(14, true), group(2, true)];
        assert_eq!(rule(&facts).unwrap().observation, "14 x \"KeyError: region\"");
    }
}
