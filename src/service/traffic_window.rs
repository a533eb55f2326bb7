//! The traffic of one release over the last minute and hour: for its status, the cost of a drain, and the
//! baseline of the judge.

use std::collections::{BTreeMap, VecDeque};

use crate::judge::{BLOCK, without_one_source};
use crate::model::{BlockSources, Counts};

const MINUTE_BLOCKS: usize = 240;
const RATE_BLOCKS: usize = 40;
const HOUR_MINUTES: usize = 60;
const WORST_WINDOW_MINUTES: usize = 5;
/// Failing sources of a minute that are kept.
const SOURCES_MAX: usize = 32;

/// Counts of the last minute by block, and of the last hour by minute.
#[derive(Debug, Default)]
pub(crate) struct TrafficWindow {
    total: Counts,
    blocks: VecDeque<Counts>,
    minutes: VecDeque<Minute>,
    current_minute: Minute,
    ticks: usize,
    has_answered: bool,
    /// Requests before its first response, once it responds.
    before_first_answer: Option<Counts>,
}

/// One minute: all requests, and those of failing sources.
#[derive(Debug, Default)]
struct Minute {
    counts: Counts,
    sources: BTreeMap<u64, Counts>,
    /// Whether several sources were active.
    has_several: bool,
}

impl Minute {
    fn add(&mut self, block: Counts, sources: &BlockSources) {
        self.counts += block;
        self.has_several |= 1 < sources.sources_active;
        for it in &sources.sources {
            if self.sources.len() < SOURCES_MAX || self.sources.contains_key(&it.source) {
                *self.sources.entry(it.source).or_default() += it.counts;
            }
        }
    }
}

impl TrafficWindow {
    /// Adds a block: what `total` holds beyond the last call, and where its failures come from.
    pub(crate) fn add_block(&mut self, total: Counts, sources: &BlockSources) -> Counts {
        let block = total.since(&self.total);
        self.total = total;
        self.blocks.push_back(block);
        if self.blocks.len() > MINUTE_BLOCKS {
            self.blocks.pop_front();
        }
        self.current_minute.add(block, sources);
        if self.has_answered && self.before_first_answer.is_none() {
            self.before_first_answer = Some(self.hour_since_first_answer());
            (self.minutes, self.current_minute) = (VecDeque::new(), Minute::default());
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(MINUTE_BLOCKS) {
            self.minutes.push_back(std::mem::take(&mut self.current_minute));
            if self.minutes.len() > HOUR_MINUTES {
                self.minutes.pop_front();
            }
        }
        block
    }

    /// What `total` holds beyond the last block.
    pub(crate) fn since_last_block(&self, total: Counts) -> Counts {
        total.since(&self.total)
    }

    /// Requests a second over the last ten seconds.
    pub(crate) fn rate(&self) -> f64 {
        let blocks = self.blocks.len().min(RATE_BLOCKS);
        let sum: u64 = self.blocks.iter().rev().take(blocks).map(Counts::total).sum();
        to_f64(sum) / (BLOCK.as_secs_f64() * to_f64(u64::try_from(blocks.max(1)).unwrap_or(1)))
    }

    /// The requests that were judged over the last minute.
    pub(crate) fn recent_requests(&self) -> u64 {
        self.minute().judged()
    }

    fn minute(&self) -> Counts {
        self.blocks.iter().fold(Counts::default(), |sum, block| sum + *block)
    }

    /// The share of failed requests over the last minute.
    pub(crate) fn error_rate(&self) -> f64 {
        let sum = self.minute();
        to_f64(sum.server_fault + sum.tool_fault) / to_f64(sum.judged().max(1))
    }

    /// The release responds. Failures before that, such as after a boot, do not belong into the
    /// baseline: they would permit the next release to fail as often.
    pub(crate) fn mark_answered(&mut self) {
        self.has_answered = true;
    }

    /// The last hour, or as much of it as this daemon saw.
    pub(crate) fn hour(&self) -> Counts {
        let before_first_answer =
            self.before_first_answer.filter(|_| self.minutes.len() < HOUR_MINUTES);
        self.hour_since_first_answer() + before_first_answer.unwrap_or_default()
    }

    /// The same, since its first response.
    pub(crate) fn hour_since_first_answer(&self) -> Counts {
        self.recent_minutes().fold(Counts::default(), |sum, minute| sum + minute.counts)
    }

    fn recent_minutes(&self) -> impl Iterator<Item = &Minute> {
        self.minutes.iter().chain([&self.current_minute])
    }

    /// The same without a source that failed much, while it was served otherwise: what the next release is
    /// compared with.
    pub(crate) fn baseline(&self) -> Counts {
        let mut shares: BTreeMap<u64, (Counts, Counts)> = BTreeMap::new();
        for minute in self.recent_minutes().filter(|minute| minute.has_several) {
            for (source, own) in &minute.sources {
                let share = shares.entry(*source).or_default();
                *share = (share.0 + *own, share.1 + minute.counts.since(own));
            }
        }
        without_one_source(self.hour_since_first_answer(), shares.into_values())
    }

    /// The worst five minutes since its first response, within the last hour: requests, and failed ones.
    pub(crate) fn worst_window(&self) -> (u64, u64) {
        let minutes: Vec<_> = self.recent_minutes().map(|minute| minute.counts).collect();
        let error_share = |(n, failed): &(u64, u64)| to_f64(*failed) / to_f64((*n).max(1));
        minutes
            .windows(WORST_WINDOW_MINUTES.min(minutes.len()))
            .map(|minutes| {
                let sum = minutes.iter().fold(Counts::default(), |sum, minute| sum + *minute);
                (sum.judged(), sum.server_fault)
            })
            .max_by(|a, b| error_share(a).total_cmp(&error_share(b)))
            .unwrap_or_default()
    }

    /// Everything since the release was added.
    pub(crate) fn total(&self) -> Counts {
        self.total
    }
}

pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SourceCounts;

    #[test]
    fn failures_before_the_first_answer_do_not_relax_the_baseline() {
        let (mut window, none) = (TrafficWindow::default(), BlockSources::default());
        let bad = Counts { server_fault: 40, ..Counts::default() };
        window.add_block(bad, &none);
        assert_eq!((window.hour_since_first_answer(), window.worst_window()), (bad, (40, 40)));
        window.mark_answered();
        // The block of the first response also holds requests that were refused just before.
        window.add_block(bad + bad, &none);
        let good = Counts { ok: 7, ..Counts::default() };
        window.add_block(bad + bad + good, &none);
        assert_eq!((window.hour_since_first_answer(), window.worst_window()), (good, (7, 0)));
        assert_eq!(window.hour(), bad + bad + good, "clients saw these failures, too");
        window.mark_answered();
        window.add_block(bad + bad + good + bad, &none);
        assert_eq!(window.hour_since_first_answer(), good + bad, "only the first time");
    }

    #[test]
    fn one_failing_source_is_no_baseline() {
        let counts = |ok, server_fault| Counts { ok, server_fault, ..Counts::default() };
        let of = |source, counts| SourceCounts { source, call: 1, counts };
        let block = |sources_active, sources| BlockSources {
            sources_active,
            sources,
            ..BlockSources::default()
        };
        let baseline = |sources: &BlockSources| {
            let mut window = TrafficWindow::default();
            window.add_block(counts(100, 20), sources);
            window.baseline()
        };
        // One of them fails always, the others never.
        assert_eq!(baseline(&block(5, vec![of(7, counts(0, 20))])), counts(100, 0));
        // It is the only one, or others fail as much, or they have said too little.
        assert_eq!(baseline(&block(1, vec![of(7, counts(0, 20))])), counts(100, 20));
        let both = vec![of(7, counts(50, 10)), of(8, counts(50, 10))];
        assert_eq!(baseline(&block(2, both)), counts(100, 20));
        assert_eq!(baseline(&block(2, vec![of(7, counts(98, 20))])), counts(100, 20));
    }
}
