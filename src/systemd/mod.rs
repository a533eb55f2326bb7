//! systemd, the service manager of this host: over D-Bus, the state of units and the jobs that start
//! and stop them; over sockets, what it passes to the daemon.
//!
//! The unit files of the daemon itself are in `systemd/` at the root of the repository.

mod child;
mod error_help;
pub(crate) mod inherited_listeners;
mod jobs;
mod journal;
mod manager;
pub(crate) mod notify;
mod socket_unit;
mod unit_state;
mod unit_text;
mod unit_watcher;

pub use crate::systemd::journal::read_journal;
pub use crate::systemd::manager::SystemdManager;
pub use crate::systemd::unit_state::{MainExit, ResourceWeights, UnitState};
pub use crate::systemd::unit_text::read_unit_text;
pub use crate::systemd::unit_watcher::{UnitChange, UnitWatcher};
