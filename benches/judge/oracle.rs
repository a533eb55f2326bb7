//! What nobody can have: a test that knows the failure rate and the moment of the onset.

use super::traffic::{BLOCKS_PER_SECOND, BUDGET, Block};

/// Chance of a false rollback.
pub const ALPHA: f64 = 1e-3;

/// Wald's sequential probability ratio test of `share` against the budget, begun at the onset:
/// no test with the same bound needs fewer requests (Wald and Wolfowitz 1948).
pub fn detection_block(bake: &[Block], share: f64, onset: usize) -> Option<usize> {
    let bad = (share / BUDGET).ln();
    let good = ((1.0 - share) / (1.0 - BUDGET)).ln();
    let mut sum = 0.0;
    let begin = onset * BLOCKS_PER_SECOND;
    let found = bake.iter().skip(begin).position(|block| {
        sum += f64::from(block.failures) * bad;
        if block.failures < block.requests {
            sum += f64::from(block.requests - block.failures) * good;
        }
        sum >= (1.0 / ALPHA).ln()
    });
    found.map(|blocks| begin + blocks)
}

/// The information bound: seconds that hold the expected number of requests for a verdict.
pub fn expected_seconds(rate: f64, share: f64) -> f64 {
    let good = 1.0 - share;
    let rest = if good <= 0.0 { 0.0 } else { good * (good / (1.0 - BUDGET)).ln() };
    let divergence = share * (share / BUDGET).ln() + rest;
    (1.0 / ALPHA).ln() / divergence / rate
}
