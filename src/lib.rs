//! A daemon that watches every deploy of an MCP server and rolls back to the previous release, which
//! still runs, when the new one violates its objectives.
//!
//! Observations become verdicts, decisions, records and effects, in this order. The result of an
//! effect returns as an event:
//!
//! ```text
//!   clients --> proxy --outcomes--+                                        +--> proxy (route, drain, cut)
//!                                 +--> judge --verdict--> decide --+       |
//!   probes, scrapes, exits -------+       ^                 ^      |       |
//!   (signal)                              |                 |      v       |
//!                                         +---- machine ----+    record ---+--> supervisor (act, systemd)
//!                                                           ^   (timeline                 |
//!                                                           |   on disk)                  |
//!                                                           +---------- event <-----------+
//! ```
//!
//! Start with [`model`], [`judge`], [`decide`] and [`machine`], which need no runtime; then
//! [`service`], the loop that drives them. The state of a service is the fold of its timeline
//! ([`decide::Watch::restore`]), so a crash is a pause and loses no decision. The glossary is in README.md.

/// The nouns: releases, observations, verdicts, events, decisions, the timeline.
pub mod model;
mod mutex;

/// The MCP protocol: versions, methods, outcomes of messages, SSE.
pub mod mcp;

/// Observations in, a verdict out.
pub mod judge;

/// Events and commands in, decisions out.
pub mod decide;

/// One service without I/O: the judge and the state machine, joined.
pub mod machine;

/// Timelines in, incidents and post-mortems out.
pub mod incident;

// ---- nothing above does I/O; nothing below decides ----

/// The monotonic clock of the daemon, anchored to wall time.
pub mod clock;

/// Tasks and threads whose end ends the process.
pub mod critical;

/// The limit of open files, and what a lack of them means.
pub mod open_files;

/// Files where something else may lie in the way.
pub mod files;

/// TLS of outgoing connections.
pub mod tls;

/// What a release runs from, and whether it changed.
pub mod artifact;

/// Compressed bodies of responses, decoded.
pub mod content_coding;

/// The configuration file: keys, checks, settings.
pub mod config;

/// The systemd manager over D-Bus, readiness, socket activation.
pub mod systemd;

/// Files of a service: timeline, signal log, state directory.
pub mod record;

/// Probes, scrapes and contract discovery.
pub mod signal;

/// Processes and units of releases.
pub mod act;

/// The HTTP proxy: routing, sessions, outcomes, migration, shadow calls.
pub mod proxy;

/// The control socket: protocol, client, server.
pub mod control;

/// The loop of one service and its supervisor.
pub mod service;

/// Tells people: the outbox, and the channels that deliver it.
pub mod notify;

/// The read-only status page.
pub mod web;

/// The process: instance, listeners, reload, metrics, handover.
pub mod daemon;

/// Replays recorded deploys with other settings.
pub mod backtest;

/// A release that goes bad, on this machine.
pub mod demo;

/// The first configuration of a host.
pub mod init;

/// Whether a host has what a configuration names.
pub mod preflight;

/// The verbs of the command line.
pub mod cli;
