//! Phases of a bake: when a user is there, or trouble lasts.
#![expect(clippy::indexing_slicing, reason = "the index is in range by construction")]

use super::super::rng::Rng;

/// Times from and until, in seconds, in order.
pub type Intervals = Vec<(f64, f64)>;

/// Phases that take turns: `share` of the time inside, for times with this mean.
pub fn alternating(rng: &mut Rng, share: f64, mean: f64, from: f64, until: f64) -> Intervals {
    let mean_outside = mean * (1.0 - share) / share;
    let (mut intervals, mut at) = (Vec::new(), from);
    let mut inside = rng.uniform() < share;
    while at < until {
        let lasting = rng.exponential(if inside { mean } else { mean_outside });
        if inside {
            intervals.push((at, at + lasting));
        }
        at += lasting;
        inside = !inside;
    }
    intervals
}

/// Whether one of them contains this time.
pub fn is_inside(intervals: &Intervals, at: f64) -> bool {
    let next = intervals.partition_point(|it| it.0 <= at);
    next.checked_sub(1).is_some_and(|index| at < intervals[index].1)
}
