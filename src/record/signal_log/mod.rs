//! The signals that the judge of one bake received, in order: `NNNNNN.signals`, beside the timeline.
//!
//! The writer appends each signal while the bake runs. A replay by the reader gives the judge the
//! same evidence to the bit: after a restart, and in a backtest. The codec defines the lines.

pub(super) mod codec;
mod counts_codec;
pub(super) mod reader;
#[cfg(test)]
mod reader_tests;
mod sources_codec;
mod trial_codec;
pub(super) mod writer;
