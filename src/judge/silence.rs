//! Two releases that stand still at the same time: a host that is paused, or starved.
//!
//! Requests that wait meanwhile fail at their deadline, which is nothing that the release on trial did. Probes
//! come a second apart, so for the first seconds nothing else shows that the other release stands still, too.

use std::time::Duration;

use crate::model::{Counts, Moment};

/// A silence shorter than this is none: between two answers some time passes.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// What stops both releases does not stop them in the same moment.
const MARGIN: Duration = Duration::from_millis(250);

/// The answers of both releases since the one on trial has last answered a request.
#[derive(Debug, Clone)]
pub(super) struct Silence {
    /// The last block with an answer of the release on trial.
    since: Moment,
    /// Whether requests failed, or were late, in the silence.
    has_faults: bool,
    /// The first answer of the other release in it, and the last one.
    other: Option<(Moment, Moment)>,
}

impl Silence {
    /// It begins now.
    pub(super) fn new(now: Moment) -> Self {
        Self { since: now, has_faults: false, other: None }
    }

    /// A block of the release on trial ended, of `ms` milliseconds. Returns whether a silence of both ended
    /// with it: the other release was silent for most of that time, too. The rows of a replay can be too long
    /// to tell.
    pub(super) fn add_block(&mut self, now: Moment, ms: u32, counts: &Counts) -> bool {
        if !has_answers(counts) {
            self.has_faults |= is_short(ms) && counts.has_faults();
            return false;
        }
        let lasted = now.since(self.since);
        let other_silent = self.other.map_or(lasted, |(first, _)| first.since(self.since));
        let is_silence = self.has_faults && is_short(ms) && SILENCE_MIN <= lasted;
        let was_shared = is_silence && lasted * 3 / 4 <= other_silent;
        *self = Self::new(now);
        was_shared
    }

    /// The other release answered a probe.
    pub(super) fn other_answers(&mut self, now: Moment) {
        if MARGIN <= now.since(self.since) {
            self.other = Some((self.other.map_or(now, |(first, _)| first), now));
        }
    }

    /// A block of the other release ended.
    pub(super) fn add_other_block(&mut self, now: Moment, counts: &Counts) {
        // A stream that a client leaves, or that moves, is neutral and no answer.
        if has_answers(&Counts { neutral: 0, ..*counts }) {
            self.other_answers(now);
        }
    }

    /// Whether the other release has answered in the later half of the silence.
    pub(super) fn is_of_one(&self, now: Moment) -> bool {
        self.other.is_some_and(|(_, last)| now.since(last) * 2 <= now.since(self.since))
    }

    /// Whether it is not known yet that only one is silent, for less than this long.
    pub(super) fn may_be_shared(&self, now: Moment, at_most: Duration) -> bool {
        let lasted = now.since(self.since);
        self.has_faults && SILENCE_MIN <= lasted && lasted < at_most && !self.is_of_one(now)
    }

    /// The daemon did not run for this long.
    pub(super) fn skip(&mut self, gap: Duration) {
        self.since = self.since + gap;
    }
}

fn is_short(ms: u32) -> bool {
    Duration::from_millis(ms.into()) < SILENCE_MIN
}

fn has_answers(counts: &Counts) -> bool {
    let Counts { ok, tool_fault, client_fault, neutral, .. } = *counts;
    0 < ok.saturating_add(tool_fault).saturating_add(client_fault).saturating_add(neutral)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok() -> Counts {
        Counts { ok: 5, ..Counts::default() }
    }

    fn counts(server_fault: u64) -> Counts {
        Counts { server_fault, ..Counts::default() }
    }

    /// Both answer until 10 s. Then the release on trial fails until `until`, and the other one answers at
    /// these times.
    fn is_shared(until: u64, others: &[u64]) -> bool {
        let mut silence = Silence::new(Moment(0));
        assert!(!silence.add_block(Moment(10_000), 250, &ok()));
        for now in (10_000..until).step_by(50) {
            if others.contains(&now) {
                silence.other_answers(Moment(now));
            }
            if now % 250 == 0 {
                assert!(!silence.add_block(Moment(now), 250, &counts(3)));
            }
        }
        silence.add_block(Moment(until), 250, &ok())
    }

    #[test]
    fn a_silence_is_shared_if_the_other_release_is_silent_for_most_of_it() {
        assert!(is_shared(12_500, &[]));
        // The last answer before, and the first one after it.
        assert!(is_shared(12_500, &[10_000, 10_050, 12_400]));
        assert!(!is_shared(12_500, &[11_000, 12_000]));
        assert!(!is_shared(12_500, &[10_300]));
        assert!(!is_shared(10_750, &[]), "too short");
    }

    #[test]
    fn a_silence_without_a_request_is_none() {
        let mut silence = Silence::new(Moment(0));
        assert!(!silence.add_block(Moment(20_000), 250, &ok()));
        silence.add_block(Moment(22_000), 250, &counts(0));
        assert!(!silence.add_block(Moment(40_000), 250, &ok()));
    }

    #[test]
    fn an_answer_in_the_later_half_shows_that_only_one_is_silent() {
        let mut silence = Silence::new(Moment(10_000));
        silence.other_answers(Moment(10_100));
        assert!(!silence.is_of_one(Moment(11_000)), "it may have been before both stopped");
        silence.other_answers(Moment(10_600));
        assert!(silence.is_of_one(Moment(11_000)) && !silence.is_of_one(Moment(12_000)));
        silence.add_other_block(Moment(11_500), &Counts { neutral: 2, ..counts(3) });
        assert!(!silence.is_of_one(Moment(12_000)));
        silence.add_other_block(Moment(11_500), &ok());
        assert!(silence.is_of_one(Moment(12_000)));
    }
}
