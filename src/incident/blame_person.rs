//! Whether a word means a person.

use crate::incident::blame_clause::{POSSESSIVE, Sentence};
use crate::incident::blame_words::{WORDS, Word};

impl Sentence<'_> {
    /// A pronoun, a noun for people, a known user, a handle, or a first name.
    pub(super) fn is_person(&self, at: usize) -> bool {
        let Some(word) = self.get(at) else { return false };
        let base = word.base();
        let is_noun = || WORDS.people.has(base) && !self.is_attribute(at);
        word.is_handle
            || (self.users.contains(base) && (word.is_capital || !WORDS.names.has(base)))
            || WORDS.pronouns.has(base)
            || word.is(&POSSESSIVE)
            || is_noun()
            || self.is_named_by_pronoun(at)
            || (word.is_capital && WORDS.names.has(base))
    }

    /// One person: a known user, a handle, a first name, `he` or `she`.
    pub(super) fn is_individual(&self, at: usize) -> bool {
        let Some(word) = self.get(at) else { return false };
        word.is_handle
            || word.is(&["he", "she"])
            || self.users.contains(word.base())
            || self.is_named_by_pronoun(at)
            || (word.is_capital && WORDS.names.has(word.base()))
    }

    /// A capitalised word that `he` or `she` stands for: products have no gender.
    fn is_named_by_pronoun(&self, at: usize) -> bool {
        let is_name = self.get(at).is_some_and(|it| {
            it.is_capital && it.lower.len() > 2 && it.lower.chars().all(char::is_alphabetic)
        });
        const COMMON: [&str; 20] = [
            "the", "when", "had", "why", "how", "because", "after", "before", "once", "each",
            "this", "that", "then", "with", "without", "but", "and", "nobody", "what", "only",
        ];
        let of_person = |it: &Word| it.is(&["he", "she", "his", "her", "himself", "herself"]);
        is_name && !self.is(at, &COMMON) && self.words_after(at).any(of_person)
    }

    /// `operator command`, `support case`: the noun describes another one.
    fn is_attribute(&self, at: usize) -> bool {
        let Some(next) =
            self.get(at + 1).filter(|_| self.get(at).is_some_and(|it| !it.ends_clause))
        else {
            return false;
        };
        next.is(&[
            "command",
            "guide",
            "manual",
            "account",
            "accounts",
            "group",
            "role",
            "id",
            "session",
            "sessions",
            "data",
            "table",
            "interface",
            "pod",
            "site",
            "form",
            "case",
            "cases",
            "ticket",
            "tickets",
            "portal",
            "page",
            "console",
            "node",
            "code",
            "api",
            "tool",
            "tools",
            "mail",
        ])
    }
}
