//! The kernel killed the release for lack of memory.

use crate::incident::document::Offer;
use crate::incident::facts::Facts;

/// Words of the kernel, of systemd and of common runtimes.
const WORDS: [&str; 5] =
    ["oom-kill", "out of memory", "heap out of memory", "outofmemory", "memoryerror"];

pub(super) fn rule(facts: &Facts) -> Option<Offer> {
    let release = facts.release()?;
    let names_memory = |text: &str| {
        let lower = text.to_lowercase();
        WORDS.iter().any(|it| lower.contains(it))
    };
    let exits = facts.trial().map(|it| it.exits.0).unwrap_or_default();
    let exit_words = facts.trial().into_iter().flat_map(|it| it.exits.1.iter());
    let events = facts.timeline.iter().map(|entry| &entry.because);
    // What the previous release printed, too, explains nothing.
    let output = facts.output.iter().filter(|it| it.is_new).map(|group| &group.example);
    let answers = facts.samples.iter().filter(|it| it.release == release.number);
    let answers = answers.map(|it| &it.message);
    let seen = exit_words.chain(events).chain(output).chain(answers);
    let seen = seen.into_iter().find(|text| names_memory(text))?;
    let seen: String = seen.chars().take(160).collect();
    let observation = match exits {
        0 => format!("\"{seen}\""),
        exits => format!("{exits} exits; \"{seen}\""),
    };
    Some(
        Offer::new("memory", 95, format!("{release} runs out of memory"), observation)
            .action(format!("find what {release} keeps in memory, or raise its memory limit")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn an_oom_kill_names_memory() {
        let mut facts = example::facts();
        assert_eq!(rule(&facts), None);
        let trial = example::trial(&mut facts);
        trial.exits = (3, vec!["killed for lack of memory (oom-kill)".to_owned()]);
        let offer = rule(&facts).unwrap();
        assert_eq!(offer.title, "v2 runs out of memory");
        assert!(offer.observation.contains("3 exits"), "{}", offer.observation);
    }
}
