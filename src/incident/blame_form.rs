//! Forms of a sentence that blame a person, whatever their verb is.

use crate::incident::blame_clause::Sentence;
use crate::incident::blame_words::WORDS;

/// Words behind a person in which a relative clause says what came of it.
const CONSEQUENCE_REACH: usize = 20;

impl Sentence<'_> {
    /// The form in a word, if it blames the person or the pronoun at this place.
    pub(super) fn form(&self, at: usize) -> Option<&'static str> {
        if self.is(at, &["whoever"]) && !self.is(at + 1, &["is", "was", "has", "needs", "wants"]) {
            return Some("whoever it was");
        }
        if at == 0 && self.is(0, &["who"]) && self.is_deed(1) {
            return Some("who it was");
        }
        if !self.is_person(at) {
            return None;
        }
        if self.is_cleft(at) {
            return Some("it was a person");
        }
        if self.is_agent(at) {
            return Some("done by a person");
        }
        if self.is_duty(at) {
            return Some("whose duty it was");
        }
        if self.is_asked_why(at) {
            return Some("why a person did it");
        }
        if self.is_state_of_mind(at) {
            return Some("what a person thought");
        }
        if self.made_what_broke(at) {
            return Some("what a person made");
        }
        if self.would_have_done_better(at) {
            return Some("what a better person does");
        }
        let is_subject = !self.is_object(at) && !self.get(at)?.is_possessive();
        if is_subject && self.goes_on_with_reproach(at) {
            return Some("what a person should have done");
        }
        if is_subject && self.is_named_doer(at) {
            return Some("did it");
        }
        (is_subject && self.has_consequence(at)).then_some("what came of the act of a person")
    }

    /// `Bob restored the wrong copy`: one person, by name, did something that is no response. A post-mortem
    /// says what was done. A reason behind it (`because the pipeline was down`, `as the runbook says`) makes
    /// it a sentence about that.
    fn is_named_doer(&self, at: usize) -> bool {
        const IRREGULAR: [&str; 17] = [
            "ran", "put", "gave", "took", "made", "kept", "left", "set", "cut", "sent", "did",
            "got", "drew", "threw", "drove", "spent", "held",
        ];
        let is_verb = self.is(at + 1, &IRREGULAR) || self.is_deed(at + 1);
        let has_reason = (at + 2..at + CONSEQUENCE_REACH)
            .any(|it| self.is(it, &["because", "as", "since", "so", "to", "which"]));
        self.is_individual(at) && is_verb && !has_reason
    }

    /// A verb in the past that is no part of the response to an incident.
    fn is_deed(&self, at: usize) -> bool {
        self.get(at).is_some_and(|word| {
            let word = word.lower.as_str();
            let is_past = word.ends_with("ed") || WORDS.verbs.has(word);
            is_past && !WORDS.responses.has(word)
        })
    }

    /// `It was Bob who restarted it`: the sentence looks for who did it.
    fn is_cleft(&self, at: usize) -> bool {
        let start = self.phrase_start(at);
        let is_it = start >= 2
            && self.is(start - 2, &["it"])
            && self.is(start - 1, &["was", "is", "wasn't"]);
        let verb = self.get(at + 2).map_or("", |it| it.lower.as_str());
        is_it && self.is(at + 1, &["who", "that"]) && !WORDS.responses.has(verb)
    }

    /// `was restarted by Bob`: any participle that is no part of the response.
    fn is_agent(&self, at: usize) -> bool {
        let Some(by) = self.phrase_start(at).checked_sub(1) else { return false };
        let Some(verb) = by.checked_sub(1) else { return false };
        let is_passive = (1..=3).any(|back| {
            verb.checked_sub(back).is_some_and(|it| self.is(it, &["was", "were", "been", "got"]))
        });
        self.is(by, &["by"]) && is_passive && self.is_deed(verb)
    }

    /// `Why was Bob alone?`, not why he was kept from something.
    fn is_asked_why(&self, at: usize) -> bool {
        const AUXILIARIES: [&str; 9] =
            ["was", "were", "is", "does", "do", "would", "had", "wasn't", "doesn't"];
        let start = self.phrase_start(at);
        let asks = start >= 2 && self.is(start - 2, &["why"]) && self.is(start - 1, &AUXILIARIES);
        asks && !(at + 1..at + 5).any(|it| self.is_kept_from(it))
    }

    /// `Bob's reluctance`, `her assumption that`: a noun for what went on in a head.
    fn is_state_of_mind(&self, at: usize) -> bool {
        const NOT_OF_MIND: [&str; 12] = [
            "presence",
            "performance",
            "maintenance",
            "experience",
            "guidance",
            "assistance",
            "readiness",
            "business",
            "sequence",
            "reference",
            "instance",
            "absence",
        ];
        const OF_MIND: [&str; 6] =
            ["assumption", "assumptions", "hesitation", "belief", "habit", "habits"];
        let is_owner = self.get(at).is_some_and(super::blame_words::Word::is_possessive)
            || self.is(at, &["his", "her", "their", "our"]);
        let is_mind = |it: usize| {
            self.get(it).is_some_and(|word| {
                let has_suffix = ["ness", "ance", "ence"].iter().any(|it| word.lower.ends_with(it));
                word.is(&OF_MIND) || (has_suffix && !word.is(&NOT_OF_MIND))
            })
        };
        is_owner && (at + 1..at + 3).any(is_mind)
    }

    /// `the engineer whose script deleted it`, `the change that Bob made broke it`.
    fn made_what_broke(&self, at: usize) -> bool {
        let breaks = |it: usize| {
            let word = self.get(it).map_or("", |it| it.lower.as_str());
            (WORDS.harms.has(word) || WORDS.verbs.has(word) || WORDS.participles.has(word))
                && !WORDS.responses.has(word)
        };
        let is_of_whose = self.is(at + 1, &["whose"]) && (at + 3..at + 6).any(breaks);
        // A verb follows the person, and a second one, without a subject of its own.
        let is_relative = self.phrase_start(at).checked_sub(1).is_some_and(|it| {
            self.is(it, &["that", "which"])
                || self.is(it, &["change", "command", "script", "query"])
        });
        is_of_whose || (is_relative && breaks(at + 2) && !self.is(at + 1, &["not"]))
    }

    /// `it was the operator's job to look`.
    fn is_duty(&self, at: usize) -> bool {
        let is_owner = self.get(at).is_some_and(super::blame_words::Word::is_possessive)
            || self.is(at, &["his", "her", "their", "your"]);
        let is_past = self.words_before(at).any(|it| it.is(&["was", "is"]));
        is_owner && is_past && self.is(at + 1, &["job", "duty", "responsibility", "task"])
    }

    /// `would not have happened to a more careful operator`.
    fn would_have_done_better(&self, at: usize) -> bool {
        let is_better = at.checked_sub(1).and_then(|it| self.get(it));
        is_better.is_some_and(|it| WORDS.qualities.has(&it.lower))
            && self.words_before(at).any(|it| it.is(&["would", "wouldn't"]))
    }

    /// `Bob did not know it, and should have asked`: the subject is the same after the comma.
    fn goes_on_with_reproach(&self, at: usize) -> bool {
        let end = at + CONSEQUENCE_REACH;
        let mut joints = (at + 1..end)
            .filter(|it| self.is(*it, &["and", "but", "yet"]) && self.ends_before(*it));
        joints.any(|it| {
            self.is(it + 1, &["should", "could", "ought"]) && self.is(it + 2, &["have", "at", "to"])
        })
    }

    /// `Bob edited the file, which broke the build`.
    fn has_consequence(&self, at: usize) -> bool {
        if !self.is_deed(at + 1) {
            return false;
        }
        let mut clauses = (at + 2..at + CONSEQUENCE_REACH)
            .filter(|it| self.is(*it, &["which"]) && self.ends_before(*it));
        clauses.any(|it| {
            let verb = self.get(it + 1).map_or("", |it| it.lower.as_str());
            WORDS.harms.has(verb) || WORDS.verbs.has(verb) || self.is(it + 1, &["took"])
        })
    }
}
