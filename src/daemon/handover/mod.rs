//! Hands a running daemon over to the next one, which may be another version, while requests go on.
//!
//! ```text
//!   old daemon                                    new daemon
//!   SIGUSR2: starts it, passes the listeners ---> reads the configuration, binds new addresses,
//!                                                 reads the timelines without a change
//!   continues as before                      <--- prepared      (or: failed, with the reason)
//!   stops loops and listeners,
//!   closes files, unlocks the state          ---> yours
//!                                                 recovers the services, accepts clients
//!   passes the main pid to the manager       <--- ready
//!                                            ---> main
//!   drains open requests, sends changes      ---> change
//!                                            <--- ways          (routes, whenever they change)
//!   ends                                     ---> gone
//! ```
//!
//! If the new daemon fails before `prepared`, the old one continues without interruption. After that, the
//! old one stops its loops and listeners, and clients wait in the backlog until `ready`. If the new daemon
//! fails there, the old one kills it and resumes from disk. After `main`, the service manager supervises
//! the new one.

mod fd_passing;
mod protocol;
mod receive;
mod send;
mod spawn;
mod successor;

pub use crate::daemon::handover::receive::Takeover;
pub(super) use crate::daemon::handover::send::{RunEnd, hand_over};
pub(super) use crate::daemon::handover::spawn::resolve_program_path;
pub use crate::daemon::handover::spawn::spawn_successor;
pub(super) use crate::daemon::handover::successor::SuccessorStarting;
