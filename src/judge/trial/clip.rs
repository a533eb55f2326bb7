//! How much of the way to a verdict one witness may cover.
//!
//! A verdict needs three subjects and three blocks of time. No single one covers more than
//! [`THREE`] of the distance, so a retrying client, a hostile one or one bad block cannot convict.
//! The bound depends on the past alone and cuts gains from above, so it only lowers an e-process.

/// Of three: each covers a little more than a third, so that a small loss does not block a verdict.
pub(super) const THREE: f64 = 0.4;
/// Each of the first two blocks of a trial: a cold start that is no longer leaves a third of the way.
pub(super) const COLD: f64 = 1.0 / 3.0;
/// Of two.
pub(super) const TWO: f64 = 0.6;

/// The part of the way that one subject may cover, by the number of subjects on trial.
pub(super) fn subject_share(subjects_on_trial: usize) -> f64 {
    match subjects_on_trial {
        // With one subject there is no other witness.
        0 | 1 => f64::INFINITY,
        2 => TWO,
        _ => THREE,
    }
}

/// The distance in nats from a component of this weight to the threshold 1/alpha.
pub(super) fn nats_to_threshold(alpha: f64, weight: f64) -> f64 {
    -alpha.ln() - weight.ln()
}
