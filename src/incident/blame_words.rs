//! The words of the blameless check, in `blame_words.txt`, and the words of a sentence.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The lists of the file.
pub(super) static WORDS: LazyLock<Lists> =
    LazyLock::new(|| Lists::parse(include_str!("blame_words.txt")));

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
    /// What people do to end an incident, or do every day: no blame in any form.
    pub(super) responses: List,
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
                "responses" => &mut lists.responses,
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
    /// Reads it.
    pub(super) fn new(text: &str) -> Self {
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
