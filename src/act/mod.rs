//! The world, out: the processes of releases that the daemon runs itself, and the units of those that
//! systemd runs for it.
//!
//! A process outlives the daemon. Its output goes to a file, so that nothing breaks when nobody
//! reads, and its environment says whose it is, so that the next daemon finds it again.

mod address_check;
mod adopt;
mod environment;
mod log_forwarder;
mod process;
mod process_marker;
mod unit;
mod unit_env_file;

pub use adopt::{OrphanedRelease, find_orphans};
pub use process::{Process, ProcessSpec};
pub use unit::{RunIdentity, Unit};
