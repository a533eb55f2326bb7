//! Finds sentences that blame a person, and says how to write about the system in their place.
//!
//! A sentence blames where a person is the subject of a clause that has a negation, a verb of failure or a
//! judgement, where such a noun is somebody's, where a person is named as the cause, or where it says what
//! a person should have done. What the system kept from a person ("had no access", "was not paged") is no
//! blame. It is a hint, never a refusal: a list of words does not understand a text.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use crate::incident::blame_clause::Sentence;

/// Words that are read of one text.
const WORDS_MAX: usize = 20_000;
/// Words that are read of one sentence.
const SENTENCE_MAX: usize = 200;
/// Findings of one text.
const FINDINGS_MAX: usize = 20;

pub(super) static WORDS: LazyLock<Lists> =
    LazyLock::new(|| Lists::parse(include_str!("blame_words.txt")));

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

/// Words, and beginnings of words.
#[derive(Debug, Default)]
pub(super) struct List {
    whole: BTreeSet<String>,
    stems: Vec<String>,
}

impl List {
    fn add(&mut self, word: &str) {
        match word.strip_suffix('*') {
            Some(stem) => self.stems.push(stem.to_owned()),
            None => {
                self.whole.insert(word.to_owned());
            }
        }
    }

    /// Whether it has the word, in lower case.
    pub(super) fn has(&self, word: &str) -> bool {
        self.whole.contains(word) || self.stems.iter().any(|it| word.starts_with(it.as_str()))
    }
}

/// The sections of the file.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Pronouns for people.
    pub(super) pronouns: List,
    /// Nouns for people.
    pub(super) people: List,
    /// First names.
    pub(super) names: List,
    /// Verbs that blame their subject.
    pub(super) verbs: List,
    /// Judgements of a person.
    pub(super) adjectives: List,
    /// What a better person would be.
    pub(super) qualities: List,
    /// What the act of a person does.
    pub(super) harms: List,
    /// Failures that can be somebody's.
    pub(super) nouns: List,
    /// Adverbs that judge.
    pub(super) adverbs: List,
    /// Before `by` and a person.
    pub(super) participles: List,
    /// What a person can be without, by no fault: access, time.
    pub(super) things: List,
    /// After `was not`: what others did not do for the person.
    pub(super) blocked: List,
    /// After `did not`: what did not reach the person.
    pub(super) got: List,
    /// Phrases that blame wherever they stand.
    pub(super) phrases: Vec<Vec<String>>,
}

impl Lists {
    fn parse(text: &str) -> Self {
        let mut lists = Self::default();
        let mut section = "";
        for line in text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#'))
        {
            if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                section = name;
                continue;
            }
            let list = match section {
                "pronouns" => &mut lists.pronouns,
                "people" => &mut lists.people,
                "names" => &mut lists.names,
                "verbs" => &mut lists.verbs,
                "adjectives" => &mut lists.adjectives,
                "qualities" => &mut lists.qualities,
                "harms" => &mut lists.harms,
                "nouns" => &mut lists.nouns,
                "adverbs" => &mut lists.adverbs,
                "participles" => &mut lists.participles,
                "things" => &mut lists.things,
                "blocked" => &mut lists.blocked,
                "got" => &mut lists.got,
                _ => {
                    lists.phrases.push(line.split_whitespace().map(str::to_owned).collect());
                    continue;
                }
            };
            line.split_whitespace().for_each(|word| list.add(word));
        }
        lists
    }
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

/// A word: its lower case without marks around it, and what stands behind it.
#[derive(Debug)]
pub(super) struct Word {
    /// In lower case.
    pub(super) lower: String,
    /// It begins with a capital letter.
    pub(super) is_capital: bool,
    /// It is one as `@tom`.
    pub(super) is_handle: bool,
    /// A comma, colon or bracket stands behind it.
    pub(super) ends_clause: bool,
}

impl Word {
    fn new(text: &str) -> Self {
        let text = text.replace('\u{2019}', "'");
        let core = text.trim_matches(|c: char| !c.is_alphanumeric() && c != '@');
        Self {
            lower: core.to_lowercase(),
            is_capital: core.chars().next().is_some_and(char::is_uppercase),
            is_handle: core.len() > 1 && core.starts_with('@'),
            ends_clause: text.ends_with([',', ':', ')']),
        }
    }

    /// Whether it is one of these.
    pub(super) fn is(&self, words: &[&str]) -> bool {
        words.contains(&self.lower.as_str())
    }

    /// `Bob's`, `reviewers'`.
    pub(super) fn is_possessive(&self) -> bool {
        self.lower.ends_with("'s") || self.lower.ends_with("s'")
    }

    /// Without a possessive ending.
    pub(super) fn base(&self) -> &str {
        let word = self.lower.strip_suffix("'s").unwrap_or(&self.lower);
        word.strip_suffix('\'').unwrap_or(word)
    }
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

    #[test]
    fn the_sentences_that_it_was_made_with_are_found() {
        let (blaming, system) =
            (include_str!("blaming_sentences.txt"), include_str!("system_sentences.txt"));
        assert!(lines(blaming).len() >= 150 && lines(system).len() >= 150);
        let (precision, recall) = measure("made with", blaming, system);
        assert!(precision > 0.95 && recall > 0.93, "{precision} {recall}");
    }

    /// The manual states these numbers. Nothing may be changed because of a sentence in these files.
    #[test]
    fn of_sentences_that_were_held_out_the_manual_states_the_numbers() {
        let (blaming, system) =
            (include_str!("held_out_blaming.txt"), include_str!("held_out_system.txt"));
        let (precision, recall) = measure("held out", blaming, system);
        assert!(precision > 0.95 && recall > 0.87, "{precision} {recall}");
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
