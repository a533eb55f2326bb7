//! How a release runs: as a process that the daemon starts, or as a unit that systemd starts for it.
//!
//! A process outlives the daemon. It writes its output to a file, because a pipe would break with the
//! daemon. Markers in its environment let the next daemon adopt it.

mod address_check;
mod adopt;
mod environment;
mod log_forwarder;
mod process;
mod process_marker;
mod unit;
mod unit_env_file;
mod user_switch;

pub use adopt::{OrphanedRelease, find_orphans};
pub use process::{Process, ProcessSpec};
pub use unit::{RunIdentity, Unit, check_unit};
pub(crate) use user_switch::ensure_allowed as ensure_user_switch_allowed;
pub(crate) use user_switch::ensure_may_create_in;
