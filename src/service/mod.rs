//! One service: its control loop, and what the loop drives.
//!
//! [`build`] makes the loop from the timeline. [`service_loop`] receives messages from the [`inbox`], lets the
//! judge and the state machine decide, and records each decision. Then [`executor`] executes it on the
//! proxy and the [`supervisor`]. The daemon reaches the loop through its [`handle`].

pub(crate) mod artifact_guard;
mod attention;
pub(crate) mod bake;
pub(crate) mod build;
pub(crate) mod call_usage;
pub(crate) mod changes;
pub(crate) mod commands;
pub(crate) mod counters;
mod end_of_block;
pub(crate) mod executor;
mod explain;
pub(crate) mod handle;
pub(crate) mod heartbeat;
pub(crate) mod inbox;
pub(crate) mod last_outcome;
mod machine_settings;
pub(crate) mod ramp;
pub(crate) mod recording;
mod reload;
pub(crate) mod service_loop;
pub(crate) mod shadow_controller;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod traffic_window;
