//! What the recorded signals of a bake say about the traffic: counts by release and call, the first
//! and the last bad answer, the error rate over time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::incident::text::clean_call;
use crate::model::{Counts, Moment, Observation, ReleaseNumber, Signal};

/// Calls of one release that are kept, those with most faults first.
const CALLS_MAX: usize = 50;
/// Points of the error rate over time.
const POINTS_MAX: u64 = 240;
/// Exits and failed probes that are kept in words.
const WORDS_MAX: usize = 5;
/// Releases of one bake.
const RELEASES_MAX: usize = 4;

/// The traffic of one bake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// When the bake began.
    pub opened: Moment,
    /// When the last signal arrived.
    pub last: Moment,
    /// Each release.
    pub releases: Vec<ReleaseTraffic>,
}

/// The traffic of one release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReleaseTraffic {
    /// The release.
    pub release: ReleaseNumber,
    /// All its requests.
    pub counts: Counts,
    /// The first second with a fault, and the last one.
    pub first_bad: Option<Moment>,
    /// The last one.
    pub last_bad: Option<Moment>,
    /// Its requests by method and name.
    pub calls: Vec<CallTraffic>,
    /// Exits of its process: how many, and the first ones in words.
    pub exits: (u64, Vec<String>),
    /// Probes that passed, that failed, and the first failures in words.
    pub probes: (u64, u64, Vec<String>),
    /// Shadow calls that ended on it, and how many of them failed.
    pub shadow: (u64, u64),
    /// Over time.
    pub series: Vec<Point>,
}

/// The traffic of one call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallTraffic {
    /// The method, and the tool or prompt that it names, such as `tools/call forecast`.
    pub call: String,
    /// Its requests.
    pub counts: Counts,
}

/// One interval of the error rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its start, in milliseconds since the bake began.
    pub ms: u64,
    /// Requests that count.
    pub judged: u64,
    /// Faults of the release among them, and rejected calls.
    pub bad: u64,
}

/// Requests that went wrong for a client: faults of the release, and calls that it rejected.
pub(super) fn bad(counts: &Counts) -> u64 {
    counts.server_fault.saturating_add(counts.tool_fault)
}

impl Traffic {
    /// Sums the signals of a bake that began at `opened`.
    ///
    /// Requests count up to the last count by call, which comes once a second: what a document says of all
    /// requests and of each call is of one moment.
    pub fn collect<S: IntoIterator<Item = (Moment, Signal)>>(
        opened: Moment,
        last: Moment,
        signals: impl Fn() -> S,
    ) -> Self {
        let is_by_call = |it: &(Moment, Signal)| matches!(it.1.observation, Observation::Calls(_));
        let by_call = signals().into_iter().filter(is_by_call).last();
        let counted_until = by_call.map_or(last, |(now, _)| now);
        let is_counted = |(now, it): &(Moment, Signal)| {
            *now <= counted_until || !matches!(it.observation, Observation::Block(..))
        };
        let width = (last.0.saturating_sub(opened.0) / POINTS_MAX).max(1_000);
        let mut releases: BTreeMap<ReleaseNumber, Sums> = BTreeMap::new();
        for (now, signal) in signals().into_iter().filter(is_counted) {
            let is_known = releases.contains_key(&signal.release);
            if !is_known && releases.len() >= RELEASES_MAX {
                continue;
            }
            let sums = releases.entry(signal.release).or_default();
            sums.add(now, now.0.saturating_sub(opened.0) / width * width, signal.observation);
        }
        let releases = releases.into_iter().map(|(release, sums)| sums.finish(release)).collect();
        Self { opened, last, releases }
    }

    /// The traffic of a release.
    pub fn release(&self, number: ReleaseNumber) -> Option<&ReleaseTraffic> {
        self.releases.iter().find(|it| it.release == number)
    }
}

/// The sums of one release while the signals are read.
#[derive(Debug, Default)]
struct Sums {
    traffic: ReleaseTraffic,
    calls: BTreeMap<String, Counts>,
    series: BTreeMap<u64, Point>,
}

impl Sums {
    fn add(&mut self, now: Moment, bucket: u64, observation: Observation) {
        match observation {
            Observation::Block(_, counts) => {
                self.traffic.counts += counts;
                if bad(&counts) > 0 {
                    self.traffic.first_bad.get_or_insert(now);
                    self.traffic.last_bad = Some(now);
                }
                let point = self.series.entry(bucket).or_default();
                *point = Point {
                    ms: bucket,
                    judged: point.judged + counts.judged(),
                    bad: point.bad + bad(&counts),
                };
            }
            Observation::Calls(calls) => {
                for ((method, name), counts) in calls {
                    let call = clean_call(&method, &name);
                    // The recording bounds the number of calls.
                    *self.calls.entry(call).or_default() += counts;
                }
            }
            Observation::Shadow(ended, failed) => {
                self.traffic.shadow.0 += ended;
                self.traffic.shadow.1 += failed;
            }
            Observation::Exited(how) => {
                self.traffic.exits.0 += 1;
                push_bounded(&mut self.traffic.exits.1, how);
            }
            Observation::Probe(result) if result.is_ok() => self.traffic.probes.0 += 1,
            Observation::Probe(result) => {
                self.traffic.probes.1 += 1;
                push_bounded(&mut self.traffic.probes.2, result.to_string());
            }
            Observation::Scraped(_)
            | Observation::Sources(_)
            | Observation::Starting(..)
            | Observation::KnownFailing(_)
            | Observation::Cells(_)
            | Observation::Step(_) => (),
        }
    }

    fn finish(self, release: ReleaseNumber) -> ReleaseTraffic {
        let mut calls: Vec<_> =
            self.calls.into_iter().map(|(call, counts)| CallTraffic { call, counts }).collect();
        calls.sort_by_key(|it| {
            std::cmp::Reverse((bad(&it.counts), it.counts.client_fault, it.counts.total()))
        });
        calls.truncate(CALLS_MAX);
        let series = self.series.into_values().collect();
        ReleaseTraffic { release, calls, series, ..self.traffic }
    }
}

/// Keeps the first words, each one once.
fn push_bounded(words: &mut Vec<String>, word: String) {
    if words.len() < WORDS_MAX && !words.contains(&word) {
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeResult;

    #[test]
    fn counts_times_and_words_are_those_of_the_signals() {
        let signal = |release, observation| Signal { release: ReleaseNumber(release), observation };
        let counts = |ok, server_fault| Counts { ok, server_fault, ..Counts::default() };
        let call = ("tools/call".into(), "fore\u{1b}cast".into());
        let signals = [
            (Moment(1_250), signal(2, Observation::Block(250, counts(4, 0)))),
            (Moment(1_500), signal(2, Observation::Block(250, counts(1, 2)))),
            (Moment(3_000), signal(2, Observation::Block(250, counts(0, 1)))),
            (Moment(3_000), signal(2, Observation::Calls(vec![(call, counts(5, 3))]))),
            (Moment(3_000), signal(1, Observation::Block(250, counts(9, 0)))),
            (Moment(3_100), signal(2, Observation::Exited("exit status 1".into()))),
            (Moment(3_200), signal(2, Observation::Probe(ProbeResult::TimedOut))),
        ];
        let traffic = Traffic::collect(Moment(1_000), Moment(4_000), || signals.clone());
        let trial = traffic.release(ReleaseNumber(2)).unwrap();
        assert_eq!((trial.counts, bad(&trial.counts)), (counts(5, 3), 3));
        assert_eq!((trial.first_bad, trial.last_bad), (Some(Moment(1_500)), Some(Moment(3_000))));
        assert_eq!(trial.calls[0].call, "tools/call forecast");
        assert_eq!(trial.exits, (1, vec!["exit status 1".to_owned()]));
        assert_eq!((trial.probes.0, trial.probes.1), (0, 1));
        let points: Vec<_> = trial.series.iter().map(|it| (it.ms, it.judged, it.bad)).collect();
        assert_eq!(points, [(0, 7, 2), (2_000, 1, 1)]);
        assert_eq!(traffic.release(ReleaseNumber(1)).unwrap().counts, counts(9, 0));
        assert_eq!(traffic.release(ReleaseNumber(3)), None);
    }

    #[test]
    fn all_requests_and_those_by_call_are_of_one_moment() {
        let signal = |observation| Signal { release: ReleaseNumber(2), observation };
        let failed = |count| Counts { server_fault: count, ..Counts::default() };
        let call = || ("tools/call".into(), "echo".into());
        let signals = [
            (Moment(1_250), signal(Observation::Block(250, failed(4)))),
            (Moment(2_000), signal(Observation::Block(250, failed(1)))),
            (Moment(2_000), signal(Observation::Calls(vec![(call(), failed(5))]))),
            (Moment(2_250), signal(Observation::Block(250, failed(7)))),
            (Moment(2_300), signal(Observation::Exited("exit code 1".into()))),
        ];
        let traffic = Traffic::collect(Moment(1_000), Moment(2_300), || signals.clone());
        let trial = traffic.release(ReleaseNumber(2)).unwrap();
        assert_eq!((trial.counts, trial.calls[0].counts), (failed(5), failed(5)));
        assert_eq!((trial.last_bad, trial.exits.0), (Some(Moment(2_000)), 1));
        // A bake of less than a second has no count by call.
        let short = signals.into_iter().take(1);
        let short = Traffic::collect(Moment(1_000), Moment(1_250), || short.clone());
        assert_eq!(short.releases[0].counts, failed(4));
    }
}
