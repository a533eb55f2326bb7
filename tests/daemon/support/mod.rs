//! A host of its own for each test: a folder, free ports, a daemon, and nothing left behind.

mod dice;
mod host;
mod ports;
mod processes;
mod server;
mod time;
mod verb;
mod web;

pub(crate) use dice::Rng;
pub(crate) use host::{DaemonHarness, SERVICE};
pub(crate) use ports::free_port;
pub(crate) use processes::{ReleaseProcess, exists, release_processes};
pub(crate) use server::ExternalServer;
pub(crate) use time::{epoch_ms, sleep, wait_for, wait_until};
pub(crate) use verb::{CliCommand, CliOutput};
pub(crate) use web::{VersionPoller, serving_version};
