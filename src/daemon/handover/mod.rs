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

mod give;
mod parcel;
mod prepare;
mod program;
mod take;
mod word;

use crate::model::{Decision, TimelineEvent};

use super::keeper::ServiceLoop;

pub(super) use give::hand_over;
pub(super) use parcel::ListenerFds;
pub(super) use prepare::SuccessorStarting;
pub(super) use take::Predecessor;

pub use program::spawn_successor;
pub use take::Takeover;

/// Remembers what can not be told any more when a program was replaced.
pub(super) fn resolve_program_path() {
    program::resolve_program_path();
}

/// A daemon, for those who read of it.
fn describe(pid: u32, version: &str) -> String {
    format!("process {pid} (version {version})")
}

impl ServiceLoop {
    /// Lets go of everything, and leaves it as it is: another daemon takes it up.
    pub(super) async fn detach(&mut self, successor: &str) {
        // Time until here was watched. Without this line, deadlines would move by it.
        if self.watch.deadline().is_some() {
            let because = format!("hands over to {successor}");
            let _ = self.record_and_apply(Decision {
                because,
                event: TimelineEvent::Noted,
                effects: Vec::new(),
            });
        }
        self.supervisor.detach_all().await;
    }
}
