//! What a judge observed in one bake, as a compact log: written while it happens, read by backtests.

pub(super) mod codec;
pub(super) mod reader;
pub(super) mod writer;
