//! Finds sentences that blame a person, and says how to write about the system in their place.
//!
//! A sentence blames where a person is the subject of a clause that has a negation, a verb of failure or a
//! judgement, where such a noun is somebody's, where a person is named as the cause, or where it says what
//! a person should have done. What the system kept from a person ("had no access", "was not paged") is no
//! blame. It is a hint: a list of words does not understand a text. Only a person who asks for it with
//! `--strict` is refused.

use std::collections::BTreeSet;

use crate::incident::blame_clause::Sentence;
use crate::incident::blame_words::Word;

/// Words that are read of one text.
const WORDS_MAX: usize = 20_000;
/// Words that are read of one sentence.
const SENTENCE_MAX: usize = 200;
/// Findings of one text.
const FINDINGS_MAX: usize = 20;

/// A sentence that blames a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// The sentence.
    pub sentence: String,
    /// The words that blame.
    pub because: String,
    /// How to write it instead.
    pub instead: &'static str,
}

/// Every sentence that blames. `users` are names of people who are known, such as user names.
pub fn find_blame(text: &str, users: &[String]) -> Vec<Blame> {
    let users: BTreeSet<_> = users.iter().map(|it| it.to_lowercase()).collect();
    let mut read = 0;
    let mut found = Vec::new();
    for sentence in sentences(text) {
        let words: Vec<_> = sentence.split_whitespace().map(Word::new).take(SENTENCE_MAX).collect();
        read += words.len();
        if read > WORDS_MAX || found.len() >= FINDINGS_MAX {
            break;
        }
        let blame = Sentence::new(&words, &users).blame();
        if let Some((because, instead)) = blame {
            found.push(Blame { sentence: sentence.trim().to_owned(), because, instead });
        }
    }
    found
}

/// Sentences end at a full stop before a space, at other marks, and at lines.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(['\n', '!', ';'])
        .flat_map(|part| part.split(". "))
        .flat_map(|part| part.split_inclusive('?'))
        .filter(|it| !it.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|it| !it.is_empty() && !it.starts_with('#')).collect()
    }

    /// Precision and recall over two lists of sentences. Run with `--nocapture` for the numbers.
    fn measure(name: &str, blaming: &str, system: &str) -> (f64, f64) {
        let users = ["jdoe".to_owned(), "mkeller".to_owned()];
        let is_found = |line: &&&str| !find_blame(line, &users).is_empty();
        let (blaming, system) = (lines(blaming), lines(system));
        let hits = blaming.iter().filter(is_found).count();
        let false_alarms = system.iter().filter(is_found).count();
        let precision = hits as f64 / (hits + false_alarms) as f64;
        let recall = hits as f64 / blaming.len() as f64;
        println!(
            "{name}: {} blaming, {} of the system; precision {precision:.3}, recall {recall:.3}",
            blaming.len(),
            system.len()
        );
        (precision, recall)
    }

    const MANUAL: &str = include_str!("../../packaging/manual/incidents.md");

    /// The manual states the numbers of two lists after these words.
    fn assert_stated(before: &str, count: usize, after: &str, (precision, recall): (f64, f64)) {
        let stated = format!(
            "{before} {count} {after}, its precision is {precision:.2} and its recall {recall:.2}."
        );
        assert!(MANUAL.contains(&stated), "the manual does not state: {stated}");
    }

    #[test]
    fn the_sentences_that_it_was_made_with_are_found() {
        let (blaming, system) =
            (include_str!("blaming_sentences.txt"), include_str!("system_sentences.txt"));
        let (blaming_count, system_count) = (lines(blaming).len(), lines(system).len());
        assert!(blaming_count >= 150 && system_count >= 150);
        let (precision, recall) = measure("made with", blaming, system);
        assert!(precision > 0.95 && recall > 0.93, "{precision} {recall}");
        let count = blaming_count + system_count;
        let after = "sentences that it was made with";
        assert_stated("On the", count, after, (precision, recall));
    }

    /// Nothing may be changed because of a sentence in these files.
    #[test]
    fn of_sentences_that_were_held_out_the_manual_states_the_numbers() {
        let (blaming, system) =
            (include_str!("held_out_blaming.txt"), include_str!("held_out_system.txt"));
        let (precision, recall) = measure("held out", blaming, system);
        assert!(precision > 0.95 && recall > 0.87, "{precision} {recall}");
        let count = lines(blaming).len() + lines(system).len();
        let after = "sentences of the same author, from which no rule was made";
        assert_stated("On", count, after, (precision, recall));
    }

    /// Written before the last rules and scored after them. Nothing may be changed because of one of them.
    #[test]
    fn of_sentences_that_were_written_last_the_manual_states_the_numbers() {
        let (blaming, system) =
            (include_str!("fresh_blaming.txt"), include_str!("fresh_system.txt"));
        let measured = measure("fresh", blaming, system);
        let count = lines(blaming).len() + lines(system).len();
        assert_stated("On", count, "that were written before the last rules", measured);
    }

    #[test]
    fn a_finding_names_the_sentence_and_the_words() {
        let text =
            "The deploy was at noon. Bob forgot to run tests. The pipeline had no test step.";
        let found = find_blame(text, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sentence, "Bob forgot to run tests");
        assert_eq!(found[0].because, "bob forgot");
        assert!(find_blame("The deploy pipeline did not run integration tests.", &[]).is_empty());
        assert_eq!(find_blame("jdoe broke the build", &["jdoe".to_owned()]).len(), 1);
        assert!(find_blame("The mark will ruin the page.", &["mark".to_owned()]).is_empty());
        assert!(find_blame(&"word ".repeat(50_000), &[]).is_empty());
    }

    #[test]
    fn any_text_is_read() {
        for text in
            ["", "?", "'s", "Bob", "Bob's", "by", "it took", "if Bob", "of of of he", "no", "@"]
        {
            find_blame(text, &[]);
        }
        let words =
            ["Bob", "he", "by", "of", "no", "one", "did", "not", "should", "who", "and", "'s", ","];
        let mut text = String::new();
        for number in 0..2_000_usize {
            text.push_str(words[number * number % 13 * 7 % 13]);
            text.push(' ');
        }
        find_blame(&text, &[]);
    }
}
