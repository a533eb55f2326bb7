//! Watches every deploy of an MCP server and puts the previous release back, still running and
//! warm, when the new one breaks its promise.
//!
//! Data flows one way, and what an act achieved comes back as an event:
//!
//! ```text
//!   probes, processes ---> signal --+
//!                                   +--> judge --verdict--> decide --decision--> record --> act
//!   requests -> proxy -> outcomes --+                         ^                    |         |
//!                                                             +------ event <------|---------+
//!                                                                                  v
//!                                                     timeline (JSONL, on disk before the effect)
//! ```
//!
//! Two rooms serve others: [`artifact`] says what a release runs from and whether it is still that,
//! [`systemd`] speaks to systemd for [`signal`] (how units stand) and [`act`] (start and stop them).
//!
//! Read in this order: [`model`], the nouns; [`mcp`], what the protocol says; [`judge`], how sure we
//! are; [`decide`], what follows;
//! then [`daemon`], where all of it meets the world. The state of a service is the fold of its
//! timeline ([`decide::Watch::restore`]), so a crash at any moment is a pause, not a loss.

pub mod model;

pub mod mcp;

pub mod judge;

pub mod decide;

// ---- nothing above does I/O; nothing below decides ----

pub mod clock;

pub mod artifact;

pub mod config;

pub mod systemd;

pub mod record;

pub mod signal;

pub mod act;

pub mod proxy;

pub mod control;

pub mod service;

pub mod daemon;

pub mod backtest;

pub mod demo;

pub mod cli;
