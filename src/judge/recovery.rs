//! Whether the previous release meets its objectives again after a rollback.

use std::time::Duration;

use crate::judge::beta;
use crate::judge::slo::Indicator;
use crate::judge::source_shares::SourceShares;
use crate::model::{Counts, Moment, Observation, ReleaseNumber, Signal};

/// This time without a fault counts as recovered, if there were requests or probes.
const FAULT_FREE_MIN: Duration = Duration::from_secs(1);
/// Good probes that stand in for traffic where there is none.
const PROBES_MIN: u64 = 2;
/// The probability with which errors of tools within what is allowed count as a breach.
const TAIL: f64 = 0.05;

/// The observation of a release that has its traffic back.
#[derive(Debug, Clone)]
pub struct Recovery {
    release: ReleaseNumber,
    /// The share of tool calls that may have isError, if the tools have an objective.
    tools_allowed: Option<f64>,
    /// Where failures come from: one user that fails alone is no fault of the release.
    sources: SourceShares,
    fault_free_since: Moment,
    /// What was seen since then.
    counts: Counts,
    /// The calls of tools among it, and those with isError, without one user that fails alone.
    tools: (u64, u64),
    good_probes: u64,
    /// What it failed last.
    last_failure: Option<String>,
}

impl Recovery {
    /// Starts to observe `release`. `tools_allowed` is the share of tool calls that may have isError, if
    /// that is known.
    pub fn new(release: ReleaseNumber, tools_allowed: Option<f64>, now: Moment) -> Self {
        Self {
            release,
            tools_allowed,
            sources: SourceShares::default(),
            fault_free_since: now,
            counts: Counts::default(),
            tools: (0, 0),
            good_probes: 0,
            last_failure: None,
        }
    }

    /// What it failed last.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_deref()
    }

    /// The observed release.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// Takes one signal in; those of other releases are ignored.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        if signal.release != self.release {
            return;
        }
        match &signal.observation {
            Observation::Block(_, counts) => self.add_block(now, counts),
            Observation::Probe(reply) if reply.is_ok() => self.good_probes += 1,
            Observation::Sources(sources) => self.sources.expect(sources),
            Observation::Calls(_) => self.sources.end_calls(),
            Observation::Shadow(..)
            | Observation::Scraped(_)
            | Observation::KnownFailing(_)
            | Observation::Cells(_)
            | Observation::Step(_)
            | Observation::Starting(..) => (),
            Observation::Probe(reply) => self.begin_again(now, format!("probe: {reply}")),
            Observation::Exited(how) => self.begin_again(now, how.clone()),
        }
    }

    fn add_block(&mut self, now: Moment, counts: &Counts) {
        let judged = self.sources.end_block(counts);
        let (requests, faults) = self.without_one_user(Indicator::Availability, &judged);
        let (calls, errors) = self.without_one_user(Indicator::Tools, &judged);
        self.counts += *counts;
        self.tools = (self.tools.0 + calls, self.tools.1 + errors);
        let (calls, errors) = self.tools;
        if 0 < faults {
            self.begin_again(now, format!("{faults} of the last {requests} requests failed"));
        } else if self.breaks_tools() {
            let found = format!("{errors} of the last {calls} tool calls had isError");
            self.begin_again(now, found);
        }
    }

    /// The requests of the last block, and the bad ones, without those of a user that fails alone.
    fn without_one_user(&self, about: Indicator, block: &Counts) -> (u64, u64) {
        let (n, bad) = about.count(block);
        let alone = self.sources.worst_source(about).filter(|it| it.is_alone());
        let (own, own_bad) = alone.and_then(|_| self.sources.left_out(about)).unwrap_or_default();
        (n.saturating_sub(own), bad.saturating_sub(own_bad))
    }

    /// Whether its tools plainly break their objective. Single errors of tools are normal.
    fn breaks_tools(&self) -> bool {
        let (n, bad) = self.tools;
        self.tools_allowed.is_some_and(|allowed| allowed < beta::lower_bound(bad, n, TAIL))
    }

    fn begin_again(&mut self, now: Moment, failure: String) {
        self.last_failure = Some(failure);
        (self.fault_free_since, self.good_probes) = (now, 0);
        (self.counts, self.tools) = (Counts::default(), (0, 0));
    }

    /// Why it counts as recovered, once it does: the rest of a sentence about the release.
    pub fn recovery_reason(&self, now: Moment) -> Option<String> {
        let judged = self.counts.judged();
        let observed = judged > 0 || self.good_probes >= PROBES_MIN;
        (observed && now.since(self.fault_free_since) >= FAULT_FREE_MIN).then(|| {
            let (probes, quiet) = (self.good_probes, now.since(self.fault_free_since).as_millis());
            // Probes show that it answers. Only requests show that it meets its objectives.
            if judged == 0 {
                return format!(
                    "answers {probes} probes in {quiet} ms; no requests came to judge it by"
                );
            }
            format!(
                "meets its objectives again: {judged} requests and {probes} probes in {quiet} ms, \
                 no fault"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BlockSources, SourceCounts};

    const RELEASE: ReleaseNumber = ReleaseNumber(1);

    fn observe(recovery: &mut Recovery, at: u64, observation: Observation) {
        recovery.observe(Moment(at), &Signal { release: RELEASE, observation });
    }

    /// When it counts as recovered, where `bad` of ten tool calls in each block have isError until `end`, and
    /// none then.
    fn recovered_at(tools_allowed: Option<f64>, bad: u64, end: u64) -> Option<u64> {
        let mut recovery = Recovery::new(RELEASE, tools_allowed, Moment(0));
        (1..60).map(|block| block * 250).find(|&at| {
            let bad = if at <= end { bad } else { 0 };
            let counts = Counts { ok: 10 - bad, tool_fault: bad, ..Counts::default() };
            observe(&mut recovery, at, Observation::Block(250, counts));
            recovery.recovery_reason(Moment(at)).is_some()
        })
    }

    #[test]
    fn tools_that_fail_as_on_the_other_release_are_no_recovery() {
        assert_eq!(recovered_at(Some(0.05), 10, 60_000), None);
        assert_eq!(recovered_at(Some(0.05), 10, 5_000), Some(6_000), "it recovers later");
        assert_eq!(recovered_at(Some(0.05), 0, 60_000), Some(1_000));
        assert_eq!(recovered_at(Some(0.05), 1, 250), Some(1_000), "a single error is normal");
        assert_eq!(recovered_at(Some(0.95), 9, 60_000), Some(1_000), "as before the deploy");
        assert_eq!(recovered_at(None, 10, 60_000), Some(1_000), "tools have no objective");
    }

    #[test]
    fn one_user_that_fails_alone_does_not_hide_that_the_others_are_served() {
        for fault in [
            Counts { server_fault: 5, ..Counts::default() },
            Counts { tool_fault: 5, ..Counts::default() },
        ] {
            for (others, recovers) in
                [(Counts { ok: 5, ..Counts::default() }, true), (fault, false)]
            {
                let mut recovery = Recovery::new(RELEASE, Some(0.05), Moment(0));
                let recovered = (1..40).any(|block| {
                    let named = |source, counts| SourceCounts { source, call: 1, counts };
                    let mut sources = vec![named(1, fault)];
                    sources.extend(others.has_faults().then(|| named(2, others)));
                    let sources =
                        BlockSources { sources_active: 2, sources, ..BlockSources::default() };
                    let at = block * 250;
                    observe(&mut recovery, at, Observation::Sources(sources));
                    observe(&mut recovery, at, Observation::Block(250, fault + others));
                    recovery.recovery_reason(Moment(at)).is_some()
                });
                assert_eq!(recovered, recovers, "{fault:?}, others {others:?}");
                assert!(recovers || recovery.last_failure().is_some());
            }
        }
    }
}
