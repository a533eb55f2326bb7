//! The nouns, and how they print. No logic beyond that.
//!
//! Everything here can be written to the timeline and read back to the same value, so that a
//! decision can be replayed from the record alone.

mod changes;
mod contract;
mod decision;
mod event;
mod fact;
mod moment;
mod outcome;
mod release;
mod signal;
mod verdict;

pub use changes::{Break, Changes};
pub use contract::{Contract, Era, Part, Shape};
pub use decision::{Decision, Effect, Look, Ticket};
pub use event::{Command, Deploy, Event, Load, Order, Readiness, Refusal, Toll};
pub use fact::{Actor, Base, Entry, Fact, Guard, Hold};
pub use moment::Moment;
pub use outcome::{Call, Class, Counts};
pub use release::{Number, Release, Slot, VERSION_MAX, is_version};
pub use signal::{History, Reply, Scrape, Seen, Signal};
pub use verdict::{Evidence, Finding, Severity, Strategy, Verdict};
