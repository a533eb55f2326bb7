//! The evidence about one objective.

use crate::model::{History, Moment};

use super::evidence::Process;
use super::{About, Limits, Objective, beta};

/// A release before that failed more than this excuses nothing further.
const LIFTED_MAX: f64 = 0.4;

/// The evidence about one objective.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) about: About,
    pub(super) process: Process,
    /// Since when the evidence is enough.
    pub(super) tripped: Option<Moment>,
    /// Why the objective is not held against the release as written, if so.
    pub(super) lifted: Option<String>,
}

impl Track {
    /// A release is not blamed for what the one before did, too: where that broke the objective in
    /// its last hour, the new one has to be clearly worse.
    pub(super) fn new(
        objective: &Objective,
        alpha: f64,
        limits: &Limits,
        history: &History,
    ) -> Self {
        let Objective { about, budget, .. } = *objective;
        let (n, bad) = about.read(&history.hour);
        let usual = limits.min_effect * beta::upper(bad, n, 0.05);
        let broken = budget < beta::lower(bad, n, 0.05) && budget < usual;
        let p0 = if broken { usual.min(LIFTED_MAX).max(budget) } else { budget };
        let lifted = broken
            .then(|| format!(" (the release before failed {bad} of {n} in its last hour, too)"));
        Self { about, process: Process::new(p0, alpha, limits), tripped: None, lifted }
    }
}
