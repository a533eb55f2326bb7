//! Signals in, a verdict out. Pure: it counts and never acts.
//!
//! In the order in which a signal passes:
//!
//! - [`service_judge`] selects what runs: the [`Judge`] of a bake, or [`recovery`] after a rollback.
//! - [`e_process`] tests requests against one objective ([`SloSettings`]). Its probability of a false
//!   alarm holds over the whole bake, for every stopping time.
//! - [`call_comparison`] compares each call with its history on the previous release.
//! - [`scraped_evidence`] reads the server's own counters, where it has any ([`counter`]).
//! - [`liveness`] covers failed probes in a row, crash loops and hangs.
//! - [`attribution`] decides whether the deploy is to blame. It compares the warm release in the same
//!   seconds ([`two_sample`]).
//! - [`source_shares`] and [`split_process`]: no source speaks for all others.
//! - [`severity`] grades a breach.
//! - [`trial`] compares the two arms of a randomized trial, subject by subject.
//!
//! A breach needs both: evidence against an objective, and evidence that the deploy is to blame.
//! [`detectability`] tells before a deploy what given settings can detect.

pub mod attribution;
mod beta;
mod block;
pub mod call_comparison;
pub mod counter;
pub mod detectability;
pub mod e_process;
pub mod liveness;
mod mixture;
mod num;
mod objective;
pub mod recovery;
mod release_judge;
#[cfg(test)]
mod release_judge_tests;
pub mod scraped_evidence;
pub mod service_judge;
pub mod severity;
mod silence;
mod slo;
mod source_shares;
#[cfg(test)]
mod source_shares_tests;
mod split_process;
mod traffic_summary;
pub mod trial;
pub mod two_sample;
mod verification;

pub use beta::false_alarm_interval;
pub use block::{BLOCK, BLOCK_MS};
pub use release_judge::Judge;
pub use slo::{AnswerAction, Baseline, Indicator, Objective, ScrapePolicy, SloSettings};
pub use source_shares::without_one_source;
