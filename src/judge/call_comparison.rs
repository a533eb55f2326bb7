//! Each call compared with what it was at the release before: rejected where it used to be understood (a
//! tool renamed, an argument made required, credentials refused), answered with nothing, or slowly.
//!
//! One of these is no evidence. But when a method or tool that clients used well suddenly gets client
//! faults on the new release, the contract broke; when it suddenly answers with nothing, it may have lost
//! its data. Each call has its own e-process; they share alpha by their traffic, and are held to what the
//! release before did.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judge::beta;
use crate::judge::e_process::EProcess;
use crate::judge::slo::{Indicator, SloSettings};
use crate::judge::source_shares::SourceShares;
use crate::judge::split_process::SplitProcess;
use crate::model::{CallKey, Counts, History, Moment, UsualAnswers, call_number};

/// Calls with fewer requests than this have no usable history.
const HISTORY_CALLS_MIN: u64 = 20;
/// The bound of what was usual is exceeded with this probability.
const TAIL: f64 = 0.05;
/// This share of a call is normal.
pub(super) const RATE_MIN: f64 = 0.05;
const RATE_MAX: f64 = 0.5;
/// A call of which the release before had more than this cannot be judged by it.
const HISTORY_RATE_MAX: f64 = 0.8;
/// A release that has just started may answer slowly for this long, or without what it still loads.
const COLD_START: Duration = Duration::from_secs(15);
/// Calls that are watched, the most frequent ones.
const CALLS_MAX: usize = 64;

/// The calls of one trial, in one respect.
#[derive(Debug, Clone)]
pub struct CallComparison {
    about: Indicator,
    processes: BTreeMap<CallKey, SplitProcess>,
    /// What was usual, for reasons.
    usual: BTreeMap<CallKey, UsualAnswers>,
    /// The call with the strongest evidence: it is asked for at each signal, and changes once a second.
    strongest: Option<CallKey>,
    /// Since when a call is broken.
    broken_since: Option<Moment>,
}

/// The call with the strongest evidence.
#[derive(Debug, Clone, Copy)]
pub(super) struct StrongestCall<'a> {
    pub(super) call: &'a CallKey,
    pub(super) process: &'a SplitProcess,
}

impl CallComparison {
    /// Watches the calls that the release before answered, with `alpha` for all of them.
    pub fn new(about: Indicator, alpha: f64, limits: &SloSettings, history: &History) -> Self {
        let mut known: Vec<_> = before(about, history)
            .filter(|(_, (n, _))| HISTORY_CALLS_MIN <= *n)
            .filter(|(_, (n, bad))| beta::upper_bound(*bad, *n, TAIL) < HISTORY_RATE_MAX)
            .collect();
        known.sort_by(|(a, (n, _)), (b, (m, _))| m.cmp(n).then(a.cmp(b)));
        known.truncate(CALLS_MAX);
        let all: f64 = known.iter().map(|(_, (n, _))| *n as f64).sum();
        let process = |(call, (n, bad)): (&CallKey, (u64, u64))| {
            // Half of alpha by traffic, half in equal parts, so that a rare call has some.
            let share = 0.5 * n as f64 / all + 0.5 / known.len() as f64;
            let usual = beta::upper_bound(bad, n, TAIL);
            // What was usual is allowed, however much that is.
            let p0 = (limits.min_effect * usual).clamp(RATE_MIN, RATE_MAX).max(usual);
            let alpha = alpha * share;
            let process = match about {
                Indicator::SmallAnswers | Indicator::SlowerAnswers => {
                    EProcess::patient(p0, alpha, limits, limits.burst.max(COLD_START))
                }
                _ => EProcess::new(p0, alpha, limits),
            };
            (call.clone(), SplitProcess::new(process))
        };
        let processes = known.iter().copied().map(process).collect();
        let is_known = |call: &CallKey| known.iter().any(|(it, _)| *it == call);
        let usual = history.usual_answers.iter().filter(|(call, _)| is_known(call));
        let usual = usual.cloned().collect();
        Self { about, processes, usual, strongest: None, broken_since: None }
    }

    /// What it compares.
    pub(super) fn indicator(&self) -> Indicator {
        self.about
    }

    /// Takes in what ended within the `ms` milliseconds that began at `start` and end now.
    pub(super) fn add_calls(
        &mut self,
        now: Moment,
        (start, ms): (Moment, u32),
        calls: &[(CallKey, Counts)],
        sources: &SourceShares,
    ) {
        let about = self.about;
        for (call, process) in &mut self.processes {
            let found = calls.iter().find(|(it, _)| it == call);
            let counts = found.map_or((0, 0), |(_, counts)| about.count(counts));
            let left_out = sources.left_out_of_call(about, call_number(&call.0, &call.1));
            process.update(start, ms, counts, left_out);
        }
        self.strongest = self.find_strongest();
        let is_broken = self.strongest().is_some_and(|it| it.process.all().is_broken());
        self.broken_since = is_broken.then(|| self.broken_since.unwrap_or(now));
    }

    /// Drops what was gathered.
    pub fn reset_evidence(&mut self) {
        self.processes.values_mut().for_each(SplitProcess::reset_evidence);
        (self.strongest, self.broken_since) = (None, None);
    }

    /// The call that is broken, and since when.
    pub(super) fn broken(&self) -> Option<(StrongestCall<'_>, Moment)> {
        let since = self.broken_since?;
        Some((self.strongest()?, since))
    }

    /// The call with the strongest evidence; None before any call was counted.
    pub(super) fn strongest(&self) -> Option<StrongestCall<'_>> {
        let (call, process) = self.processes.get_key_value(self.strongest.as_ref()?)?;
        Some(StrongestCall { call, process })
    }

    fn find_strongest(&self) -> Option<CallKey> {
        // What one user alone breaks hides no other call.
        let rank = |process: &SplitProcess| {
            let all = process.all();
            let is_proven = all.is_broken() && process.is_broken_without_worst();
            (is_proven, all.e_value() / all.threshold())
        };
        let strongest = self.processes.iter().max_by(|(_, a), (_, b)| {
            let (a, b) = (rank(a), rank(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        strongest.map(|(call, _)| call.clone())
    }

    /// How a call is named in reasons.
    pub(super) fn describe(&self, (method, name): &CallKey) -> String {
        let name = if name.is_empty() { String::new() } else { format!(" {name}") };
        format!("{} of {method}{name}", self.about.name())
    }

    /// What the answers to a call are compared with.
    pub(super) fn bound(&self, call: &CallKey) -> Option<String> {
        let UsualAnswers { bytes_min, millis_max, .. } = self.usual.get(call)?;
        match self.about {
            Indicator::SmallAnswers if *bytes_min <= 1 => Some("small: no content".to_owned()),
            Indicator::SmallAnswers => Some(format!("small: under {bytes_min} bytes of content")),
            Indicator::SlowerAnswers => Some(format!("slower: over {millis_max} ms")),
            _ => None,
        }
    }
}

/// The requests of each call at the release before, and how many of them count.
fn before(about: Indicator, history: &History) -> Box<dyn Iterator<Item = CallBefore<'_>> + '_> {
    let usual = |count: fn(&UsualAnswers) -> (u64, u64)| {
        history.usual_answers.iter().map(move |(call, usual)| (call, count(usual)))
    };
    match about {
        Indicator::SmallAnswers => Box::new(usual(|it| (it.answers, it.small))),
        Indicator::SlowerAnswers => Box::new(usual(|it| (it.timed, it.slower))),
        _ => Box::new(history.calls.iter().map(move |(call, counts)| (call, about.count(counts)))),
    }
}

type CallBefore<'a> = (&'a CallKey, (u64, u64));

#[cfg(test)]
mod tests {
    use super::*;

    /// The second in which the new release is found in breach, where `now` and on the release before
    /// `before` of 100 calls count.
    fn found_at(about: Indicator, before: u64, now: u64) -> Option<u64> {
        let call: CallKey = ("tools/call".into(), "search".into());
        let counts = |n, bad| match about {
            Indicator::SmallAnswers => Counts { ok: n, small: bad, ..Counts::default() },
            Indicator::SlowerAnswers => Counts { ok: n, slower: bad, ..Counts::default() },
            _ => Counts { ok: n - bad, client_fault: bad, ..Counts::default() },
        };
        let usual = UsualAnswers {
            bytes_min: 1,
            millis_max: 1,
            answers: 1_000,
            small: 10 * before,
            timed: 1_000,
            slower: 10 * before,
        };
        let history = History {
            calls: vec![(call.clone(), counts(1_000, 10 * before))],
            usual_answers: vec![(call.clone(), usual)],
            ..History::default()
        };
        let mut calls = CallComparison::new(about, 1e-3, &SloSettings::default(), &history);
        let sources = SourceShares::default();
        (0..600).find(|second| {
            let bad = (second + 1) * now / 5 - second * now / 5;
            let ended = [(call.clone(), counts(20, bad))];
            let start = Moment(second * 1_000);
            calls.add_calls(Moment(start.0 + 1_000), (start, 1_000), &ended, &sources);
            calls.broken().is_some()
        })
    }

    #[test]
    fn what_was_usual_is_allowed_however_much_it_was() {
        for about in [Indicator::ClientFaults, Indicator::SmallAnswers, Indicator::SlowerAnswers] {
            for usual in [1, 20, 40, 60, 75, 90, 100] {
                assert_eq!(found_at(about, usual, usual), None, "{about:?}: {usual} % as before");
            }
            for (before, now) in [(0, 20), (5, 30), (20, 90), (60, 100)] {
                let at = found_at(about, before, now);
                assert!(at.is_some_and(|at| at < 60), "{about:?}: {before} %, {now} % now: {at:?}");
            }
        }
    }

    #[test]
    fn reasons_say_what_answers_are_compared_with() {
        let call: CallKey = ("tools/call".into(), "search".into());
        let named = |about, bytes_min| {
            let usual = UsualAnswers {
                bytes_min,
                millis_max: 512,
                answers: 100,
                small: 0,
                timed: 100,
                slower: 0,
            };
            let history =
                History { usual_answers: vec![(call.clone(), usual)], ..History::default() };
            CallComparison::new(about, 1e-3, &SloSettings::default(), &history)
                .bound(&call)
                .unwrap()
        };
        let small = |bytes_min| named(Indicator::SmallAnswers, bytes_min);
        assert_eq!(small(256), "small: under 256 bytes of content");
        assert_eq!(small(0), "small: no content");
        let slower = named(Indicator::SlowerAnswers, 256);
        assert_eq!(slower, "slower: over 512 ms");
    }

    #[test]
    fn answers_may_differ_while_a_release_starts() {
        let call: CallKey = ("tools/call".into(), "search".into());
        let usual = UsualAnswers {
            bytes_min: 1,
            millis_max: 200,
            answers: 1_000,
            small: 0,
            timed: 1_000,
            slower: 0,
        };
        let history = History { usual_answers: vec![(call.clone(), usual)], ..History::default() };
        for (cold, is_found) in [(5, false), (12, false), (14, false), (30, true)] {
            let about = Indicator::SlowerAnswers;
            let mut calls = CallComparison::new(about, 1e-3, &SloSettings::default(), &history);
            let sources = SourceShares::default();
            let found = (0..120).any(|second| {
                let slower = if second < cold { 50 } else { 0 };
                let ended = [(call.clone(), Counts { ok: 50, slower, ..Counts::default() })];
                let start = Moment(second * 1_000);
                calls.add_calls(Moment(start.0 + 1_000), (start, 1_000), &ended, &sources);
                calls.broken().is_some()
            });
            assert_eq!(found, is_found, "slow for {cold} s");
        }
    }
}
