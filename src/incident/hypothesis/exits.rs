//! The process of the release ends by itself.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let (exits, words) = &facts.trial()?.exits;
    let first = words.first()?;
    let unit = if *exits == 1 { "exit" } else { "exits" };
    let mut observation = format!("{exits} {unit} during the bake, the first: {first}");
    if let Some(group) = facts.new_error() {
        observation.push_str(&format!("; it printed \"{}\"", group.example));
    }
    Some(
        Offer::new("exits", 90, format!("the process of {release} crashes"), observation)
            .action(format!("start {release} in a test and let it serve calls before a deploy")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn exits_are_counted() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        example::trial(&mut facts).exits = (1, vec!["exit code 1".to_owned()]);
        let offer = rule(&facts).unwrap();
        assert_eq!(offer.observation, "1 exit during the bake, the first: exit code 1");
    }
}
