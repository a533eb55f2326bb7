//! The judge of a randomized trial: two releases, subjects assigned to them by chance.
//!
//! In the order in which a request passes:
//!
//! 1. [`TrialJudge::observe`] takes cells: subject, call and second of start times
//!    ([`crate::model::TrialCell`]).
//! 2. `subjects` numbers them, and leaves out what mostly failed on the old release before.
//! 3. When a second ends, its cells go to the `promise_test` (does the trial arm fail more than its
//!    objective allows?), to the rule of `total_failure`, and to `blocks` of five seconds.
//! 4. When a block ends, the `share_test` compares the arms: over the whole trial, and over the episode
//!    since the promise test began to rise.
//! 5. Each call has a promise test and a share test of its own: a broken tool of twenty is found.
//! 6. `clip` bounds what one subject and one block may contribute.
//!
//! [`ReleaseTrial`] drives it by the signals of a bake, and puts its findings into a verdict.
//!
//! The release is in breach if the share test of the trial reaches its threshold, or the promise test
//! together with the share test of the episode, or both tests of a call, or by total failure. The
//! error probability is split in thirds and united; e-values of different filtrations are never
//! averaged. `subject_test` is exact and only printed.
//!
//! The null under which a breach has at most the probability `max_false_rollback`: within each block
//! the outcomes of different subjects are independent given what affects both releases alike, no
//! subject counts for more than its clip, and trouble of one release alone is shorter than a block.

mod block_end;
mod blocks;
mod call_table;
mod call_tests;
mod cell;
mod clip;
mod judge;
mod memory;
mod number_map;
mod promise_test;
mod release_trial;
mod settings;
mod share_test;
mod subject_test;
mod subjects;
mod summary;
mod texts;
mod total_failure;
#[cfg(test)]
mod validity_tests;
#[cfg(test)]
mod witness_tests;

pub use judge::TrialJudge;
pub use release_trial::ReleaseTrial;
pub use settings::{ArmSummary, StepNeeds, StepState, TrialSettings, TrialTest};

use crate::judge::num::to_f64;
