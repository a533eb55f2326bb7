//! Replays what a bake observed through the judge, with one configuration or with two.
//!
//! [`location`] finds what the command line names: recordings, CSV files, a range of Prometheus.
//! Each becomes a [`source`] of signals. [`injection`] makes some of its good requests bad, if the
//! operator asks what a regression would do. [`replay`] feeds the signals to the judge with the
//! settings of each of the [`variants`], and returns a [`result`] and a curve to [`plot`].
//!
//! [`labelled`] finds the deploys of which a review said whether the release was good. [`comparison`]
//! sets what the judge decides now beside what happened, and adds up what changes.
//!
//! Nothing here prints or exits: `cli/backtest.rs` does.

pub(crate) mod comparison;
mod comparison_table;
mod csv;
pub(crate) mod injection;
pub(crate) mod labelled;
pub(crate) mod location;
pub(crate) mod plot;
pub(crate) mod prometheus;
pub(crate) mod recorded_traffic;
pub(crate) mod replay;
mod result;
pub(crate) mod source;
pub(crate) mod time;
pub(crate) mod variants;

use std::path::PathBuf;

use crate::config::Problems;

/// Why a replay is not possible.
#[derive(Debug)]
pub(crate) enum BacktestError {
    /// The arguments do not fit what they name.
    Usage(String),
    /// No such service or recording.
    NotFound(String),
    /// This configuration has errors.
    InvalidConfig(PathBuf, Box<Problems>),
    /// The signals cannot be read.
    Failed(String),
}
