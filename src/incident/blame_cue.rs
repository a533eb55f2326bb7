//! What a clause can say of its subject that blames it.

use crate::incident::blame_clause::Sentence;
use crate::incident::blame_words::WORDS;

impl Sentence<'_> {
    /// A word that blames the subject of its clause.
    pub(super) fn cue(&self, at: usize, is_passive: bool, is_owner: bool) -> Option<String> {
        let blames = self.is_circumstance(at, is_owner)
            || self.is_reproach(at)
            || (!is_passive && is_owner && self.blames_owner(at))
            || (!is_passive && !is_owner && self.blames_subject(at));
        blames.then(|| self.get(at).map_or(String::new(), |it| it.lower.clone()))
    }

    /// How it was done: `without`, `instead of`, `against`, `too late`.
    fn is_circumstance(&self, at: usize, is_owner: bool) -> bool {
        let after_decision = self.is_before(at, &["decided", "voted", "decide"]);
        self.is(at, &["without"])
            || (self.is(at, &["instead", "rather"]) && self.is(at + 1, &["of", "than"]))
            || (self.is(at, &["too", "against", "anyway", "despite", "although"])
                && !is_owner
                && !after_decision)
    }

    /// `should have`, `could have`, `ought to`.
    fn is_reproach(&self, at: usize) -> bool {
        let should = self.is(at, &["should", "could", "ought"])
            && self.is(at + 1, &["have", "not", "never", "to"])
            && !self.is(at + 2, &["be"]);
        should || self.is(at, &["should've", "shouldn't", "could've"])
    }

    /// What `Bob's change` did.
    fn blames_owner(&self, at: usize) -> bool {
        let word = self.get(at).map_or("", |it| it.lower.as_str());
        WORDS.verbs.has(word) || WORDS.harms.has(word) || self.took_down(at)
    }

    /// What the person did, was, or did not do.
    fn blames_subject(&self, at: usize) -> bool {
        let word = self.get(at).map_or("", |it| it.lower.as_str());
        self.is_negation(at)
            || WORDS.verbs.has(word)
            || WORDS.adverbs.has(word)
            || self.took_down(at)
            || self.is_slow(at)
            || self.is_late_or_by_hand(at)
            || self.is_judgement(at)
            || (self.is(at, &["turned", "switched"]) && self.within(at, 4, &["off"]))
            || (self.is(at, &["decided"]) && self.is(at + 1, &["that"]))
            || (self.is(at, &["told", "warned", "trusted", "supposed"])
                && self.is_before(at, &["was", "were"]))
    }

    fn is_negation(&self, at: usize) -> bool {
        const NOT: [&str; 8] =
            ["not", "never", "didn't", "doesn't", "don't", "wasn't", "weren't", "won't"];
        // `saw no change` is an observation.
        let is_sight =
            self.is_before(at, &["saw", "found", "see", "sees", "seen", "was", "were", "with"]);
        (self.is(at, &NOT) && !self.is(at + 1, &["only", "affected"]))
            || self.is(at, &["nothing", "nobody", "neither"])
            || (self.is(at, &["no"]) && !self.is(at + 1, &["longer"]) && !is_sight)
    }

    fn took_down(&self, at: usize) -> bool {
        self.is(at, &["took", "takes", "brought", "brings"]) && self.within(at, 4, &["down"])
    }

    /// `needed an hour`, of one person.
    fn is_slow(&self, at: usize) -> bool {
        self.is(at, &["needed", "took", "spent"])
            && !self.is_before(at, &["we", "team", "teams", "engineers"])
            && self.within(at, 4, &["minutes", "hour", "hours", "days", "night", "weeks"])
    }

    /// `by hand`, `by accident`, `on his own`, `only after an hour`; not what the person had to do so.
    fn is_late_or_by_hand(&self, at: usize) -> bool {
        let is_compelled = (1..=8).any(|back| {
            at.checked_sub(back).is_some_and(|it| {
                self.is(it, &["had", "has", "have", "needed", "need"]) && self.is(it + 1, &["to"])
            })
        });
        let is_so = (self.is(at, &["by"]) && self.is(at + 1, &["hand", "accident", "mistake"]))
            || (self.is(at, &["on"])
                && self.is(at + 1, &["his", "her", "their"])
                && self.is(at + 2, &["own"]))
            || (self.is(at, &["only"]) && self.is(at + 1, &["after"]))
            || (self.is(at, &["hours", "days", "weeks"]) && self.is(at + 1, &["later", "late"]));
        is_so && !is_compelled
    }

    /// `was careless`, `the wrong host`, `made a mistake`.
    fn is_judgement(&self, at: usize) -> bool {
        let word = self.get(at).map_or("", |it| it.lower.as_str());
        let behind = |back: usize, words: &[&str]| {
            at.checked_sub(back).is_some_and(|place| self.is(place, words))
        };
        let is_predicate =
            (1..=3).any(|it| behind(it, &["was", "were", "is", "are", "been", "so", "too"]));
        let is_made = behind(1, &["a", "an", "the", "his", "her", "their"])
            && behind(2, &["made", "make", "makes", "committed", "was"]);
        (WORDS.adjectives.has(word) && (is_predicate || word == "wrong"))
            || (WORDS.nouns.has(word) && is_made)
    }

    fn is_before(&self, at: usize, words: &[&str]) -> bool {
        at.checked_sub(1).is_some_and(|it| self.is(it, words))
    }

    fn within(&self, at: usize, reach: usize, words: &[&str]) -> bool {
        (1..=reach).any(|it| self.is(at + it, words))
    }
}
