//! Signals in, a verdict out. Pure: it counts, it never acts.
//!
//! Several things speak about the release on trial, each in its own file:
//!
//! - [`evidence`]: requests against an objective, as an e-process with a stated probability of a
//!   false alarm over the whole bake, whatever the stopping time;
//! - [`calls`]: calls that used to be understood, against what the release before did;
//! - [`scraped`]: the server's own counters, where it has some ([`counter`]);
//! - [`liveness`]: probes in a row, a process that keeps dying, requests taken and none answered;
//! - [`attribution`]: whether the deploy is to blame, by what the warm release does in the same
//!   seconds ([`contrast`]).
//!
//! [`severity`] then says how bad it is. A breach needs both: evidence against the promise, and
//! evidence that the deploy is to blame.

pub mod attribution;
pub mod calls;
mod climb;
pub mod contrast;
pub mod counter;
pub mod evidence;
pub mod liveness;
mod promise;
pub mod reach;
pub mod recovery;
pub mod scraped;
pub mod severity;
mod track;
pub mod trial;

mod beta;

use std::time::Duration;

use crate::model::{
    Counts, Evidence, Finding, History, Moment, Number, Seen, Severity, Signal, Verdict,
};

use attribution::{Attribution, Ruling};
use calls::Calls;
use evidence::Process;
use liveness::Liveness;
use scraped::Scraped;
use track::Track;

pub use promise::{About, Baseline, Limits, Objective};

/// The length of a block of evidence from the proxy.
pub const BLOCK: Duration = Duration::from_millis(BLOCK_MS as u64);
/// The same, in milliseconds.
pub const BLOCK_MS: u32 = 250;

const SECOND: Duration = Duration::from_secs(1);
const SECOND_MS: u32 = 1_000;
/// The part of the way to a verdict at which it is worth looking closer.
const SUSPICION: f64 = 0.1;
/// So long without a request is worth a word.
const QUIET: Duration = Duration::from_secs(10);

/// The trial of one release.
#[derive(Debug, Clone)]
pub struct Judge {
    release: Number,
    limits: Limits,
    tracks: Vec<Track>,
    calls: Option<(Calls, Option<Moment>)>,
    liveness: Liveness,
    attribution: Attribution,
    scraped: Option<Scraped>,
    shared: bool,
    total: Counts,
    opened: Moment,
    asked: Option<Moment>,
    verified: bool,
    /// Requests, and bad ones, when it was last looked at whether the promise is kept.
    looked_at: (u64, u64),
}

/// An objective that was broken.
struct Tripped {
    /// Since when that is proven.
    since: Moment,
    /// When it began.
    onset: Moment,
}

impl Judge {
    /// Opens the trial of `release`, which `warm`, with this history, could replace.
    pub fn new(
        release: Number,
        warm: Option<Number>,
        limits: Limits,
        history: History,
        now: Moment,
    ) -> Self {
        let weights: f64 = limits.objectives.iter().map(|objective| objective.weight).sum();
        let (mut tracks, mut calls) = (Vec::new(), None);
        for objective in &limits.objectives {
            let alpha = limits.max_false_rollback * objective.weight / weights;
            if objective.about == About::Calls {
                calls = Some((Calls::new(alpha, &limits, &history), None));
            } else {
                tracks.push(Track::new(objective, alpha, &limits, &history));
            }
        }
        let liveness = Liveness::new(limits.probes, now);
        let attribution = Attribution::new(warm, &limits, &history);
        let scraped = limits.scrape.map(|scraping| Scraped::new(scraping, now));
        let (total, opened) = (Counts::default(), now);
        Self {
            release,
            limits,
            tracks,
            calls,
            liveness,
            attribution,
            scraped,
            shared: false,
            total,
            opened,
            asked: None,
            verified: false,
            looked_at: (0, 0),
        }
    }

    /// The release on trial.
    pub fn release(&self) -> Number {
        self.release
    }

    /// Takes one signal in.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        // Before the signal: what is gathered next must not depend on what it says.
        self.attribution.gather(now, self.suspicious(now));
        self.attribution.hear(now, signal);
        let shared = self.attribution.shared(now).is_some();
        if std::mem::replace(&mut self.shared, shared) && !shared {
            self.forget();
        }
        if let Seen::Scraped(scrape) = &signal.seen {
            return self.scrape(now, signal.release, scrape);
        }
        if signal.release != self.release {
            return;
        }
        match &signal.seen {
            Seen::Block(ms, counts) => self.weigh(now, *ms, counts),
            Seen::Probe(reply) => self.liveness.probed(now, reply),
            Seen::Exited(how) => {
                self.liveness.exited(now, how);
                self.scraped.iter_mut().for_each(|scraped| scraped.exited(now));
            }
            Seen::Calls(heard) => {
                if let Some((calls, tripped)) = &mut self.calls {
                    calls.hear((now - SECOND).max(self.opened), SECOND_MS, heard);
                    let enough = calls.loudest().is_some_and(|(_, process)| process.tripped());
                    *tripped = enough.then(|| tripped.unwrap_or(now));
                }
            }
            Seen::Shadow(..) | Seen::Scraped(_) => (),
        }
    }

    /// A shared outage is over: what happened meanwhile is not held against the deploy, and
    /// whichever release answers first again, the other one gets a fresh look.
    fn forget(&mut self) {
        for track in &mut self.tracks {
            track.process.forget();
            track.tripped = None;
        }
        if let Some((calls, tripped)) = &mut self.calls {
            calls.forget();
            *tripped = None;
        }
        self.liveness.forget();
    }

    fn weigh(&mut self, now: Moment, ms: u32, counts: &Counts) {
        self.total += *counts;
        self.attribution.trial(ms, counts);
        self.liveness.counted(now, counts);
        self.verify();
        if 0 < counts.total() {
            self.asked = Some(now);
        }
        let start = (now - Duration::from_millis(ms.into())).max(self.opened);
        for track in self.tracks.iter_mut().filter(|it| it.about != About::Scraped) {
            let (n, bad) = track.about.read(counts);
            track.process.update(start, ms, n, bad);
            track.tripped = track.process.tripped().then(|| track.tripped.unwrap_or(now));
        }
    }

    /// What the signals so far amount to.
    pub fn verdict(&self, now: Moment) -> Verdict {
        if let Some((because, onset)) = self.down(now) {
            let failing = 1.0;
            return match self.attribution.shared(now) {
                Some(shared) => {
                    let because = format!("{because}; {shared}");
                    self.say(now, Finding::SharedOutage, because, onset, failing)
                }
                None => self.say(now, Finding::Breach(Severity::Down), because, onset, failing),
            };
        }
        if let Some((about, because, tripped)) = self.tripped() {
            let Tripped { since, onset } = tripped;
            let ruling = self.attribution.ruling(now, about, since);
            let (finding, why, failing) = match ruling {
                Ruling::Deploy(why) => {
                    let failing = self.failing();
                    (Finding::Breach(severity::of(failing)), why, failing)
                }
                Ruling::Shared(why) => (Finding::SharedOutage, why, 0.0),
                Ruling::Open(why) => (Finding::Measuring, why, 0.0),
                Ruling::Unknown(why) => (Finding::Unattributed, why, 0.0),
            };
            return self.say(now, finding, format!("{because}; {why}"), onset, failing);
        }
        if let Some((because, since)) = self.scraped.as_ref().and_then(|it| it.blind(now)) {
            return self.say(now, Finding::NoData, because, since, 0.0);
        }
        let finding = if self.verified { Finding::Healthy } else { Finding::Undecided };
        let remarks = self.scraped.as_ref().map(|it| it.remarks(now)).unwrap_or_default();
        self.say(now, finding, self.tally(now) + &remarks, self.opened, 0.0)
    }

    /// Why the release counts as down, and since when.
    fn down(&self, now: Moment) -> Option<(String, Moment)> {
        let slow = self.tracks.iter().any(|it| it.about == About::Latency && it.tripped.is_some());
        self.liveness.down(now).or_else(|| self.liveness.silent(now, slow))
    }

    /// The objective that was broken first, the arithmetic, and when.
    fn tripped(&self) -> Option<(About, String, Tripped)> {
        let of = |process: &Process, since| Tripped { since, onset: process.onset() };
        let tracks = self.tracks.iter().filter_map(|track| {
            let process = &track.process;
            let lifted = track.lifted.as_deref().unwrap_or_default();
            let because = format!("{}{lifted}", process.because(track.about.name()));
            Some((track.about, because, of(process, track.tripped?)))
        });
        let calls = self.calls.as_ref().and_then(|(calls, tripped)| {
            let (since, (call, process)) = ((*tripped)?, calls.loudest()?);
            Some((About::Calls, process.because(&Calls::name(call)), of(process, since)))
        });
        tracks.chain(calls).min_by_key(|(.., tripped)| tripped.since)
    }

    /// How far the evidence has come, for the objective that is nearest to a verdict.
    pub fn evidence(&self) -> Evidence {
        let tracks = self.tracks.iter().map(|track| {
            let (judged, bad) = self.counted(track.about);
            (track.about.name().to_owned(), &track.process, judged, bad)
        });
        let calls = self.calls.as_ref().and_then(|(calls, _)| {
            let (judged, bad) = About::Calls.read(&self.total);
            calls.loudest().map(|(call, process)| (Calls::name(call), process, judged, bad))
        });
        tracks
            .chain(calls)
            .map(|(objective, process, judged, bad)| {
                let (e, threshold) = (process.e(), process.threshold());
                Evidence { objective, e, threshold, judged, bad }
            })
            .max_by(|a, b| a.progress().total_cmp(&b.progress()).then(a.bad.cmp(&b.bad)))
            .unwrap_or_default()
    }

    /// The evidence that the deploy is to blame, for the objective that is nearest to a verdict:
    /// enough at [`attribution::ENOUGH`]. None where there is no release to compare with.
    pub fn attribution(&self) -> Option<f64> {
        let progress = |track: &&Track| track.process.e().ln() / track.process.threshold().ln();
        let track = self.tracks.iter().max_by(|a, b| progress(a).total_cmp(&progress(b)))?;
        self.attribution.compares().then(|| self.attribution.e(track.about))
    }

    /// Whether it is worth looking closer: evidence over a tenth of the way, or a failed probe.
    pub fn suspicious(&self, now: Moment) -> bool {
        let near = |process: &Process| SUSPICION < process.e().ln() / process.threshold().ln();
        self.liveness.shaken(now)
            || self.tracks.iter().any(|track| near(&track.process))
            || self
                .calls
                .as_ref()
                .is_some_and(|(calls, _)| calls.loudest().is_some_and(|(_, process)| near(process)))
    }

    /// What every request of the trial came to.
    pub fn total(&self) -> &Counts {
        &self.total
    }

    /// Whether there is evidence that the release keeps its promise, not merely none against it:
    /// the upper 95 % bound of the failure rate lies below the smallest rate worth a rollback.
    pub fn verified(&self) -> bool {
        self.verified
    }

    /// The bound is dear; it is looked at when a bad request came, or one request in a hundred.
    fn verify(&mut self) {
        let availability = |it: &&Objective| it.about == About::Availability;
        let Some(objective) = self.limits.objectives.iter().find(availability) else { return };
        let (n, bad) = objective.about.read(&self.total);
        let worst = objective.budget * self.limits.min_effect;
        let (n_before, bad_before) = self.looked_at;
        if bad == bad_before && n < n_before.saturating_add(n_before / 100).saturating_add(1) {
            return;
        }
        self.looked_at = (n, bad);
        let possible = (bad as f64) < worst * n as f64;
        self.verified = possible && beta::upper(bad, n, 0.05) <= worst;
    }

    /// A slow answer is still an answer: leaving in a hurry would turn it into a failure. A request
    /// that hangs fails at its deadline.
    fn failing(&self) -> f64 {
        let failures = |about| matches!(about, About::Availability | About::Tools | About::Scraped);
        let tracks = self.tracks.iter().filter(|track| failures(track.about));
        tracks.map(|track| track.process.failing()).fold(0.0, f64::max)
    }

    fn tally(&self, now: Moment) -> String {
        let Counts { server_fault, tool_fault, .. } = self.total;
        let judged = self.total.judged();
        match self.asked {
            None => "no traffic yet: only probes speak".to_owned(),
            Some(at) if QUIET <= now.since(at) => format!(
                "{judged} requests judged, {server_fault} server faults, {tool_fault} tool faults; \
                 no traffic for {} s",
                now.since(at).as_secs()
            ),
            Some(_) => format!(
                "{judged} requests judged, {server_fault} server faults, {tool_fault} tool faults"
            ),
        }
    }

    fn say(
        &self,
        now: Moment,
        finding: Finding,
        because: String,
        onset: Moment,
        failing: f64,
    ) -> Verdict {
        let loudest = self.tracks.iter().max_by(|a, b| a.process.e().total_cmp(&b.process.e()));
        let rate = loudest.map_or(0.0, |track| track.process.rate(now));
        Verdict { release: self.release, finding, because, onset, failing, rate }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Reply;

    use super::*;

    #[test]
    fn when_the_warm_release_answers_first_after_a_shared_outage_the_other_gets_a_fresh_look() {
        let objective = Objective { about: About::Availability, budget: 0.005, weight: 1.0 };
        let limits = Limits {
            objectives: vec![objective],
            max_false_rollback: 1e-3,
            min_effect: 2.0,
            burst: Duration::from_secs(5),
            bake: Duration::from_secs(1800),
            probes: 3,
            baseline: Baseline::Probes,
            shadow: true,
            scrape: None,
        };
        let (new, warm) = (Number(2), Number(1));
        let mut judge = Judge::new(new, Some(warm), limits, History::default(), Moment(0));
        let mut probe = |at, release, reply| {
            judge.hear(Moment(at), &Signal { release, seen: Seen::Probe(reply) });
            judge.verdict(Moment(at)).finding
        };
        for at in 0..3 {
            probe(200 * at, warm, Reply::Refused);
            probe(200 * at, new, Reply::Refused);
        }
        assert_eq!(probe(700, new, Reply::Refused), Finding::SharedOutage);
        assert_eq!(probe(800, warm, Reply::Ok), Finding::Undecided);
        assert_eq!(probe(900, new, Reply::Ok), Finding::Undecided);
        for at in [1_100, 1_300] {
            assert_eq!(probe(at, new, Reply::Refused), Finding::Undecided);
        }
        assert_eq!(probe(1_500, new, Reply::Refused), Finding::Breach(Severity::Down));
    }
}
