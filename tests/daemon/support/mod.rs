//! A host of its own for each test: a folder, free ports, a daemon, and nothing left behind.

mod cli_command;
mod daemon_harness;
mod external_server;
mod handover_log;
mod json_server;
mod network;
mod pids;
mod ports;
mod processes;
mod receiver;
mod rng;
mod tmpfs_disk;
mod traffic;
mod wait;

pub(crate) use cli_command::{CliCommand, CliOutput};
pub(crate) use daemon_harness::{DaemonHarness, SERVICE};
pub(crate) use external_server::ExternalServer;
pub(crate) use json_server::serve_json;
pub(crate) use network::{CutPort, in_own_namespace};
pub(crate) use pids::{exists, memory_kib, open_files, signal};
pub(crate) use ports::free_port;
pub(crate) use processes::{ReleaseProcess, release_processes};
pub(crate) use receiver::{ACCEPT, Answer, Received, Receiver};
pub(crate) use rng::Rng;
pub(crate) use tmpfs_disk::TmpfsDisk;
pub(crate) use traffic::{VersionPoller, serving_version, serving_version_for};
pub(crate) use wait::{epoch_ms, sleep, wait_for, wait_until};
