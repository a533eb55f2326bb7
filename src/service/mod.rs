//! One service: its control loop, and what the loop drives.
//!
//! [`service_loop`] takes messages from the [`inbox`], lets the judge and the state machine decide, records
//! each decision, and has [`executor`] carry it out on the proxy and the [`supervisor`].

pub(crate) mod artifact_guard;
pub(crate) mod bake;
pub(crate) mod call_usage;
pub(crate) mod commands;
pub(crate) mod counters;
pub(crate) mod executor;
pub(crate) mod heartbeat;
pub(crate) mod inbox;
pub(crate) mod recording;
pub(crate) mod service_loop;
pub(crate) mod shadow_controller;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod traffic_window;
