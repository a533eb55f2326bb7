//! Puts the previous release of an MCP server back when the new one breaks its promise.
pub mod model;

pub mod judge;

pub mod decide;

// ---- nothing above does I/O; nothing below decides ----

pub mod clock;

pub mod config;

pub mod control;

pub mod cli;
