//! Rates of one release, for status lines and for the cost of leaving it.

use std::collections::VecDeque;

use crate::judge::BLOCK;
use crate::model::Counts;

const MINUTE_BLOCKS: usize = 240;
const SHORT_BLOCKS: usize = 40;
const HOUR_MINUTES: usize = 60;
const WORST_MINUTES: usize = 5;

/// The last minute in blocks, the last hour in minutes.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    seen: Counts,
    blocks: VecDeque<Counts>,
    minutes: VecDeque<Counts>,
    minute: Counts,
    ticks: usize,
    answers: bool,
    /// What came to it before it first answered, once it does.
    cold: Option<Counts>,
}

impl Gauge {
    /// Takes the counters as they stand; what was added since the last time is one block.
    pub(super) fn block(&mut self, total: Counts) -> Counts {
        let block = total.since(&self.seen);
        self.seen = total;
        self.blocks.push_back(block);
        if self.blocks.len() > MINUTE_BLOCKS {
            self.blocks.pop_front();
        }
        self.minute += block;
        if self.answers && self.cold.is_none() {
            self.cold = Some(self.warm_hour());
            (self.minutes, self.minute) = (VecDeque::new(), Counts::default());
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(MINUTE_BLOCKS) {
            self.minutes.push_back(std::mem::take(&mut self.minute));
            if self.minutes.len() > HOUR_MINUTES {
                self.minutes.pop_front();
            }
        }
        block
    }

    /// Requests a second over the last ten seconds.
    pub(super) fn rate(&self) -> f64 {
        let blocks = self.blocks.len().min(SHORT_BLOCKS);
        let sum: u64 = self.blocks.iter().rev().take(blocks).map(Counts::total).sum();
        real(sum) / (BLOCK.as_secs_f64() * real(u64::try_from(blocks.max(1)).unwrap_or(1)))
    }

    /// Share of faults of the release over the last minute.
    pub(super) fn error_rate(&self) -> f64 {
        let sum = self.blocks.iter().fold(Counts::default(), |sum, block| sum + *block);
        real(sum.server_fault + sum.tool_fault) / real(sum.judged().max(1))
    }

    /// It answers. What failed while it was not there yet, after a boot say, tells nothing of how it
    /// serves: the next release would be allowed to fail as much.
    pub(super) fn answers(&mut self) {
        self.answers = true;
    }

    /// The last hour, or as much of it as was seen.
    pub(super) fn hour(&self) -> Counts {
        let cold = self.cold.filter(|_| self.minutes.len() < HOUR_MINUTES);
        self.warm_hour() + cold.unwrap_or_default()
    }

    /// The same, from when it first answered on.
    pub(super) fn warm_hour(&self) -> Counts {
        self.minutes.iter().fold(self.minute, |sum, minute| sum + *minute)
    }

    /// The worst five minutes of the last hour in which it answered: requests, and server faults among them.
    pub(super) fn worst(&self) -> (u64, u64) {
        let minutes: Vec<_> = self.minutes.iter().chain([&self.minute]).collect();
        let share = |(n, bad): &(u64, u64)| real(*bad) / real((*n).max(1));
        minutes
            .windows(WORST_MINUTES.min(minutes.len()))
            .map(|minutes| {
                let sum = minutes.iter().fold(Counts::default(), |sum, minute| sum + **minute);
                (sum.judged(), sum.server_fault)
            })
            .max_by(|a, b| share(a).total_cmp(&share(b)))
            .unwrap_or_default()
    }

    /// Everything since the release was added.
    pub(super) fn total(&self) -> Counts {
        self.seen
    }
}

pub(super) fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_before_it_first_answered_is_no_excuse_for_the_next_release() {
        let mut gauge = Gauge::default();
        let bad = Counts { server_fault: 40, ..Counts::default() };
        gauge.block(bad);
        assert_eq!((gauge.warm_hour(), gauge.worst()), (bad, (40, 40)));
        gauge.answers();
        // The block in which it begins to answer holds what was refused just before.
        gauge.block(bad + bad);
        let good = Counts { ok: 7, ..Counts::default() };
        gauge.block(bad + bad + good);
        assert_eq!((gauge.warm_hour(), gauge.worst()), (good, (7, 0)));
        assert_eq!(gauge.hour(), bad + bad + good, "clients met it all the same");
        gauge.answers();
        gauge.block(bad + bad + good + bad);
        assert_eq!(gauge.warm_hour(), good + bad, "only the first time");
    }
}
