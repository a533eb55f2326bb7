//! Whether one sentence blames a person: who stands where, and what its clause says of them.

use std::collections::BTreeSet;

use crate::incident::blame_words::{WORDS, Word};

/// Words of a clause that are read after its subject.
const REACH: usize = 12;

const MISTAKE: &str =
    "say what in the system let the mistake through: a missing check, limit or test";
const PERSON: &str = "name the step, tool or check that did not do its part, not the person";
pub(super) const POSSESSIVE: [&str; 6] = ["his", "her", "their", "my", "our", "your"];

/// One sentence.
pub(super) struct Sentence<'a> {
    words: &'a [Word],
    pub(super) users: &'a BTreeSet<String>,
}

impl<'a> Sentence<'a> {
    /// A sentence, and the names of people who are known.
    pub(super) fn new(words: &'a [Word], users: &'a BTreeSet<String>) -> Self {
        Self { words, users }
    }

    /// The word at this place.
    pub(super) fn get(&self, at: usize) -> Option<&Word> {
        self.words.get(at)
    }

    /// Whether it is one of these.
    pub(super) fn is(&self, at: usize, words: &[&str]) -> bool {
        self.get(at).is_some_and(|it| it.is(words))
    }

    fn starts(&self, at: usize, phrase: &[String]) -> bool {
        let here = self.words.get(at..at + phrase.len());
        here.is_some_and(|it| it.iter().zip(phrase).all(|(word, wanted)| word.lower == *wanted))
    }

    /// The words that blame, and the advice.
    pub(super) fn blame(&self) -> Option<(String, &'static str)> {
        (0..self.words.len()).find_map(|at| {
            let phrase = WORDS.phrases.iter().find(|it| self.starts(at, it));
            if let Some(phrase) = phrase {
                return Some((phrase.join(" "), MISTAKE));
            }
            let by_form = || self.form(at).map(|it| (it.to_owned(), PERSON));
            self.of_nobody(at).or_else(|| self.of_person(at)).or_else(by_form)
        })
    }

    /// The words behind this place.
    pub(super) fn words_after(&self, at: usize) -> impl Iterator<Item = &Word> {
        self.words.iter().skip(at + 1)
    }

    /// The words before this place.
    pub(super) fn words_before(&self, at: usize) -> impl Iterator<Item = &Word> {
        self.words.iter().take(at)
    }

    /// Whether a comma precedes the word at this place.
    pub(super) fn ends_before(&self, at: usize) -> bool {
        at.checked_sub(1).and_then(|it| self.get(it)).is_some_and(|it| it.ends_clause)
    }

    /// `nobody checked`: all of them are blamed.
    fn of_nobody(&self, at: usize) -> Option<(String, &'static str)> {
        let is_nobody =
            self.is(at, &["nobody", "none"]) || (self.is(at, &["no"]) && self.is(at + 1, &["one"]));
        let next = if self.is(at, &["no"]) { at + 2 } else { at + 1 };
        let verb = self.get(next)?;
        let is_passive =
            verb.is(&["was", "is", "were", "has", "can", "could", "for", "in", "with", "to"]);
        // `nobody on the team`, `none of the reviewers`.
        const AMONG: [&str; 6] = ["of", "from", "in", "on", "at", "with"];
        let is_group = verb.is(&AMONG) && (next + 1..next + 5).any(|it| self.is_person(it));
        let is_passive = !is_group && (is_passive || verb.is(&AMONG));
        (is_nobody && !is_passive && !self.get(at)?.ends_clause)
            .then(|| (format!("nobody {}", verb.lower), PERSON))
    }

    /// What the sentence says of the person at this place.
    fn of_person(&self, at: usize) -> Option<(String, &'static str)> {
        if !self.is_person(at) {
            return None;
        }
        let word = self.get(at)?;
        if let Some(noun) = self.noun_of(at) {
            return Some((format!("{} {noun}", word.lower), MISTAKE));
        }
        if self.is(at, &POSSESSIVE) {
            return None;
        }
        if self.is_named_as_cause(at) {
            return Some((format!("{} as the cause", word.base()), PERSON));
        }
        if self.should_have(at) {
            return Some((format!("what {} should have done", word.base()), PERSON));
        }
        if self.is_object(at) {
            return None;
        }
        if self.is_measured(at) {
            return Some((format!("what another {} does", word.base()), PERSON));
        }
        self.in_clause(at).map(|cue| (format!("{} {cue}", word.base()), PERSON))
    }

    /// `Bob's mistake`, `Omar's slow reaction`, `the failure of the operator`, `lack of care by Bob`.
    fn noun_of(&self, at: usize) -> Option<String> {
        let judged = |word: &Word| WORDS.nouns.has(&word.lower);
        let is_pronoun = self.is(at, &POSSESSIVE);
        let is_owner = is_pronoun || self.get(at)?.is_possessive();
        if is_owner {
            for place in at + 1..at + 4 {
                let word = self.get(place)?;
                if judged(word) || (place < at + 3 && WORDS.adjectives.has(&word.lower)) {
                    return Some(word.lower.clone());
                }
            }
        }
        // Back over the article and adjectives to the preposition, and to the noun before it.
        let mut place = at.checked_sub(1)?;
        for _ in 0..4 {
            if self.is(place, &["of", "by", "from"]) {
                break;
            }
            place = place.checked_sub(1)?;
        }
        if !self.is(place, &["of", "by", "from"]) {
            return None;
        }
        let before = place.checked_sub(1)?;
        let noun = self.get(before)?;
        judged(noun).then(|| format!("{} of a person", noun.lower))
    }

    /// `because of Bob`, `thanks to Bob`, `is on Bob`, `broken by Bob`, `his doing`.
    fn is_named_as_cause(&self, at: usize) -> bool {
        let start = self.phrase_start(at);
        let Some(before) = start.checked_sub(1) else { return false };
        let two = before.checked_sub(1);
        let second = |words: &[&str]| two.is_some_and(|it| self.is(it, words));
        let ends = at + 1 >= self.words.len();
        (self.is(before, &["of"]) && second(&["because", "part"]))
            || (self.is(before, &["to"]) && second(&["thanks", "due", "down"]))
            || (self.is(before, &["on"]) && second(&["is", "was", "are"]) && ends)
            || (self.is(before, &["by"])
                && two.and_then(|it| self.get(it)).is_some_and(|it| {
                    WORDS.participles.has(&it.lower) || WORDS.verbs.has(&it.lower)
                }))
    }

    /// Where the noun phrase of the person begins: after its article and adjectives.
    pub(super) fn phrase_start(&self, at: usize) -> usize {
        const BEFORE: [&str; 12] =
            ["by", "of", "to", "on", "from", "for", "with", "and", "that", "because", "if", "than"];
        let mut start = at;
        for _ in 0..3 {
            let Some(before) = start.checked_sub(1) else { break };
            let is_edge =
                self.is(before, &BEFORE) || self.get(before).is_some_and(|it| it.ends_clause);
            if is_edge {
                break;
            }
            let is_article =
                self.is(before, &["a", "an", "the", "our", "their", "your", "this", "that", "one"]);
            start = before;
            if is_article {
                break;
            }
        }
        // Without an article in reach the phrase is the word alone.
        let has_article =
            self.is(start, &["a", "an", "the", "our", "their", "your", "this", "that", "one"]);
        if has_article || start == 0 { start } else { at }
    }

    /// `Bob should have`, `if Bob had ... would`, `had Bob`, `why did Bob`.
    fn should_have(&self, at: usize) -> bool {
        let start = self.phrase_start(at);
        let conditional = self.words.iter().any(|it| it.is(&["would", "could", "wouldn't"]));
        let before = start.checked_sub(1);
        let is_before = |words: &[&str]| before.is_some_and(|it| self.is(it, words));
        if conditional
            && (is_before(&["if", "had"]) || is_before(&["without"]) || is_before(&["but"]))
        {
            return true;
        }
        if is_before(&["wish"]) {
            return true;
        }
        let two = before.and_then(|it| it.checked_sub(1));
        let perfect = self.words.windows(2).any(|it| {
            it.first().is_some_and(|it| it.is(&["would", "could"]))
                && it.last().is_some_and(|it| it.is(&["have"]))
        });
        if perfect && is_before(&["by", "from"]) {
            return true;
        }
        if is_before(&["did", "could", "didn't"])
            && two.is_some_and(|it| self.is(it, &["why", "how"]))
        {
            return true;
        }
        // `anyone else would have`.
        let next = if self.is(at + 1, &["else"]) { at + 2 } else { at + 1 };
        let should = self.is(next, &["should", "shouldn't", "ought", "should've", "could've"]);
        let would =
            self.is(next, &["would", "could"]) && self.is(next + 1, &["have", "easily", "never"]);
        let is_plan = self.is(next + 1, &["be"]) && self.is(next + 2, &["able"]);
        let is_past = self.is(next + 1, &["have", "not", "never", "be"])
            || self.is(next, &["should've", "shouldn't", "could've"]);
        (should && is_past && !is_plan) || would
    }

    /// `a careful engineer reads it`, `it took Bob an hour`: a person is compared with a better one.
    fn is_measured(&self, at: usize) -> bool {
        let start = self.phrase_start(at);
        let quality = at
            .checked_sub(1)
            .and_then(|it| self.get(it))
            .is_some_and(|it| WORDS.qualities.has(&it.lower));
        let is_any = self.is(start, &["a", "an", "any"]) && start < at;
        let took = start >= 2 && self.is(start - 1, &["took"]) && self.is(start - 2, &["it"]);
        let is_group = self.is(at, &["team", "teams", "us", "we", "engineers", "people"]);
        (quality && is_any && !self.is_object(at)) || (took && !is_group)
    }

    /// Whether the person is what something is done to, or for.
    pub(super) fn is_object(&self, at: usize) -> bool {
        let Some(before) = self.phrase_start(at).checked_sub(1) else { return false };
        const PREPOSITIONS: [&str; 11] =
            ["to", "for", "from", "of", "with", "in", "at", "on", "between", "than", "like"];
        let is_relative = self.is(at + 1, &["who"]);
        // Also `for new engineers`: an adjective stands between.
        let is_described = before > 0 && before + 1 == at && self.is(before - 1, &PREPOSITIONS);
        !is_relative && (self.is(before, &PREPOSITIONS) || is_described)
    }

    /// What the clause says of its subject, if that blames it.
    fn in_clause(&self, subject: usize) -> Option<String> {
        if self.get(subject)?.ends_clause && !self.goes_on_after(subject) {
            return None;
        }
        let is_owner = self.get(subject)?.is_possessive();
        let mut at = subject + 1;
        let mut is_passive = false;
        // `Olga, who deployed, did not watch`: the comma behind the inserted clause goes on with hers.
        let mut may_resume = self.get(subject)?.ends_clause || self.is(at, &["who"]);
        let mut is_kept = false;
        while at < self.words.len().min(subject + 1 + REACH) {
            let word = self.get(at)?;
            is_kept |= self.is_kept_from(at);
            if let Some(cue) = self.cue(at, is_passive, is_owner).filter(|_| !is_kept) {
                return Some(cue);
            }
            is_passive |= self.begins_passive(at);
            if word.ends_clause || self.is(at, &["and", "but"]) {
                (is_kept, is_passive) = (false, false);
            }
            let ends = word.ends_clause && !self.goes_on_after(at) && !may_resume;
            may_resume &= !word.ends_clause;
            if ends || self.begins_other_clause(at) {
                return None;
            }
            at += 1;
        }
        None
    }

    /// Behind a comma, the clause goes on with `who`, `and` or `but` and a verb, or a participle.
    fn goes_on_after(&self, at: usize) -> bool {
        let next = at + 1;
        let Some(word) = self.get(next) else { return false };
        let is_joined = word.is(&["and", "but", "then", "so"]);
        let first = if is_joined { next + 1 } else { next };
        let Some(first) = self.get(first) else { return false };
        if word.is(&["who", "whoever", "distracted", "as"]) {
            return true;
        }
        let begins_subject = first.is(&[
            "the", "a", "an", "it", "its", "this", "that", "these", "there", "no", "each",
            "nothing", "nobody", "so", "because", "since", "which", "when", "while", "if", "where",
            "until", "after",
        ]);
        is_joined && !begins_subject && !first.is_capital
    }

    fn begins_other_clause(&self, at: usize) -> bool {
        let is_time = self.is(at, &["that"])
            && self.is(at + 1, &["evening", "night", "day", "morning", "week"]);
        if is_time {
            return false;
        }
        self.is(
            at,
            &[
                "because", "that", "which", "when", "while", "since", "until", "where", "whose",
                "if",
            ],
        ) || (self.is(at, &["and", "but", "so"])
            && self.get(at + 1).is_some_and(|it| {
                it.is(&["the", "a", "an", "it", "this", "that", "there", "no", "nothing", "its"])
            }))
    }

    /// The system kept something from the person: `could not see`, `had no access`, `was not paged`.
    pub(super) fn is_kept_from(&self, at: usize) -> bool {
        // `could not explain it` is about the person, `could not see it` about what was there.
        const OF_MIND: [&str; 8] =
            ["explain", "remember", "recall", "say", "wait", "resist", "decide", "concentrate"];
        if (at + 1..at + 3).any(|it| self.is(it, &OF_MIND)) {
            return false;
        }
        if self.is(at, &["cannot", "couldn't", "can't", "unable"])
            || (self.is(at, &["could", "can"]) && self.is(at + 1, &["not"]))
        {
            return true;
        }
        let next = |from: usize| self.get(from).map_or("", |it| it.lower.as_str());
        if self.is(at, &["had", "has", "have"]) && self.is(at + 1, &["no"]) {
            return WORDS.things.has(next(at + 2)) || WORDS.things.has(next(at + 3));
        }
        let negated =
            self.is(at, &["not", "didn't", "doesn't", "wasn't", "weren't", "isn't", "don't"]);
        negated && (WORDS.blocked.has(next(at + 1)) || WORDS.got.has(next(at + 1)))
    }

    /// `was sent`: the subject did nothing.
    fn begins_passive(&self, at: usize) -> bool {
        let Some(next) = self.get(at + 1) else { return false };
        let is_participle =
            next.lower.ends_with("ed") || next.is(&["sent", "given", "told", "shown", "kept"]);
        self.is(at, &["was", "were", "is", "are", "been"])
            && is_participle
            && !WORDS.adjectives.has(&next.lower)
            && !next.is(&["told", "warned", "trusted", "supposed", "asked"])
    }
}
