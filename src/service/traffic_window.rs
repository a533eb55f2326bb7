//! The traffic of one release over the last minute and hour: for its status, the cost of a drain, and the
//! baseline of the judge.

use std::collections::VecDeque;

use crate::judge::BLOCK;
use crate::model::Counts;

const MINUTE_BLOCKS: usize = 240;
const RATE_BLOCKS: usize = 40;
const HOUR_MINUTES: usize = 60;
const WORST_WINDOW_MINUTES: usize = 5;

/// Counts of the last minute by block, and of the last hour by minute.
#[derive(Debug, Default)]
pub(crate) struct TrafficWindow {
    total: Counts,
    blocks: VecDeque<Counts>,
    minutes: VecDeque<Counts>,
    current_minute: Counts,
    ticks: usize,
    has_answered: bool,
    /// Requests before its first response, once it responds.
    before_first_answer: Option<Counts>,
}

impl TrafficWindow {
    /// Adds a block: what `total` holds beyond the last call.
    pub(crate) fn add_block(&mut self, total: Counts) -> Counts {
        let block = total.since(&self.total);
        self.total = total;
        self.blocks.push_back(block);
        if self.blocks.len() > MINUTE_BLOCKS {
            self.blocks.pop_front();
        }
        self.current_minute += block;
        if self.has_answered && self.before_first_answer.is_none() {
            self.before_first_answer = Some(self.hour_since_first_answer());
            (self.minutes, self.current_minute) = (VecDeque::new(), Counts::default());
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
        self.minutes.iter().fold(self.current_minute, |sum, minute| sum + *minute)
    }

    /// The worst five minutes since its first response, within the last hour: requests, and failed ones.
    pub(crate) fn worst_window(&self) -> (u64, u64) {
        let minutes: Vec<_> = self.minutes.iter().chain([&self.current_minute]).collect();
        let error_share = |(n, failed): &(u64, u64)| to_f64(*failed) / to_f64((*n).max(1));
        minutes
            .windows(WORST_WINDOW_MINUTES.min(minutes.len()))
            .map(|minutes| {
                let sum = minutes.iter().fold(Counts::default(), |sum, minute| sum + **minute);
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

    #[test]
    fn failures_before_the_first_answer_do_not_relax_the_baseline() {
        let mut window = TrafficWindow::default();
        let bad = Counts { server_fault: 40, ..Counts::default() };
        window.add_block(bad);
        assert_eq!((window.hour_since_first_answer(), window.worst_window()), (bad, (40, 40)));
        window.mark_answered();
        // The block of the first response also holds requests that were refused just before.
        window.add_block(bad + bad);
        let good = Counts { ok: 7, ..Counts::default() };
        window.add_block(bad + bad + good);
        assert_eq!((window.hour_since_first_answer(), window.worst_window()), (good, (7, 0)));
        assert_eq!(window.hour(), bad + bad + good, "clients saw these failures, too");
        window.mark_answered();
        window.add_block(bad + bad + good + bad);
        assert_eq!(window.hour_since_first_answer(), good + bad, "only the first time");
    }
}
