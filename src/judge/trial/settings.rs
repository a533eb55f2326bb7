//! The settings of a trial, and what is known of it.

use std::time::Duration;

/// The subjects whose requests a step needs before it can end.
pub(super) const STEP_SUBJECTS: usize = 3;

/// How certain a breach has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrialSettings {
    /// Highest probability of a false breach in one trial, 0 to 1.
    pub max_false_rollback: f64,
    /// The share of requests that may fail, 0 to 1.
    pub error_budget: f64,
    /// The share of a single call's requests that may fail, 0 to 1.
    pub call_budget: f64,
    /// The smallest failure rate worth a rollback, in multiples of what is allowed.
    pub min_effect: f64,
    /// The length of a block; trouble of one release alone that is shorter is healthy.
    pub burst: Duration,
    /// How long the trial lasts.
    pub bake: Duration,
    /// How long a step lasts at most.
    pub step_max: Duration,
    /// How long nearly everything has to fail for a breach without a test.
    pub total_failure: Duration,
}

/// What found a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialTest {
    /// Failures fall on the trial arm more than its share explains.
    Shares,
    /// The trial arm fails more than allowed, and more than the control in the same seconds.
    Promise,
    /// The same for one call, by its hash; None where rare calls are counted together.
    Call(Option<u64>),
    /// Nearly everything fails on trial only.
    TotalFailure,
}

/// What one arm did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArmSummary {
    /// Subjects that are in it.
    pub subjects: usize,
    /// Requests that started in it.
    pub started: u64,
    /// Those that were faults of the release.
    pub failed: u64,
}

/// What a step that measures still needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepNeeds {
    /// Cells on trial: requests of a user for a call in one second count once.
    pub requests: u64,
    /// Users on trial that have sent nothing yet.
    pub users: usize,
    /// How long that takes at the traffic of the step; at most what is left of its longest time.
    pub expected: Duration,
}

/// Whether the share of the trial may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// The step has shown too little.
    Measuring,
    /// A test stands against the release.
    Held,
    /// The step has shown enough.
    Done,
    /// The step lasted as long as it may, and has shown too little.
    TimedOut,
}
