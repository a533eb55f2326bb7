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

use crate::model::{Decision, Fact};

use super::keeper::Keeper;

pub(super) use give::give;
pub(super) use parcel::Parcel;
pub(super) use prepare::Preparing;
pub(super) use take::Before;

pub use program::succeed;
pub use take::Taking;

/// Remembers what can not be told any more when a program was replaced.
pub(super) fn remember() {
    program::remember();
}

/// A daemon, for those who read of it.
fn who(pid: u32, version: &str) -> String {
    format!("process {pid} (version {version})")
}

impl Keeper {
    /// Lets go of everything, and leaves it as it is: another daemon takes it up.
    pub(super) async fn let_go(&mut self, to: &str) {
        // Time until here was watched. Without this line, deadlines would move by it.
        if self.watch.deadline().is_some() {
            let because = format!("hands over to {to}");
            let _ = self.commit(Decision { because, fact: Fact::Noted, then: Vec::new() });
        }
        self.crew.let_all_go().await;
    }
}
