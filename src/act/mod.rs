//! The world, out: the processes of releases that the daemon runs itself.
//!
//! A process outlives the daemon. Its output goes to a file, so that nothing breaks when nobody
//! reads, and its environment says whose it is, so that the next daemon finds it again.

mod adopt;
mod mark;
mod output;
mod place;
mod process;

pub use adopt::{Orphan, orphans};
pub use process::{Process, Spec};
