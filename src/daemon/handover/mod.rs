//! A daemon hands over to the next one, which may be another version, while requests go on.
//!
//! ```text
//!   the old one                                   the new one
//!   SIGUSR2; starts it, passes the listeners ---> reads the configuration, listens where it has to,
//!                                                 reads the timelines without touching them
//!   goes on as ever                          <--- prepared      (or: failed, and why)
//!   keepers stop, nobody is let in any more,
//!   files are closed, the state is unlocked  ---> yours
//!                                                 takes up the timelines, lets clients in
//!   tells the service manager who it is now  <--- ready
//!                                            ---> main
//!   ends what is open, and what it learns    ---> changes
//!   leaves                                   ---> gone
//! ```
//!
//! Whatever happens before `yours`, the old one goes on as if nothing had been. Between `yours` and
//! `ready` clients wait in the backlog; if the new one fails there, the old one takes the state back.
//! After `main` the service manager watches over the new one.

mod fd_passing;
mod protocol;
mod receive;
mod send;
mod spawn;
mod successor;

pub(super) use crate::daemon::handover::fd_passing::ListenerFds;
pub(super) use crate::daemon::handover::receive::Predecessor;
pub use crate::daemon::handover::receive::Takeover;
pub(super) use crate::daemon::handover::send::hand_over;
pub use crate::daemon::handover::spawn::spawn_successor;
pub(super) use crate::daemon::handover::successor::SuccessorStarting;

/// Remembers what can not be told any more when a program was replaced.
pub(super) fn resolve_program_path() {
    spawn::resolve_program_path();
}

/// A daemon, for those who read of it.
fn describe(pid: u32, version: &str) -> String {
    format!("process {pid} (version {version})")
}
