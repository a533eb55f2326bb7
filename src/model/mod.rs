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

pub use changes::{BreakingChange, ContractDiff};
pub use contract::{Contract, ContractPart, Era, ToolSchema};
pub use decision::{Decision, Effect, JudgeTarget, Ticket};
pub use event::{
    Command, CommandRequest, DeployRequest, DrainCost, Event, MigrationRefused, ReadinessReport,
    ReleaseLoad,
};
pub use fact::{Actor, CarriedOver, Guard, Hold, TimelineEntry, TimelineEvent};
pub use moment::Moment;
pub use outcome::{CallKey, Counts, Outcome};
pub use release::{Release, ReleaseNumber, Slot, VERSION_MAX, is_valid_version};
pub use signal::{History, Observation, ProbeResult, ScrapeResult, Signal};
pub use verdict::{Evidence, Finding, Severity, Strategy, Verdict};
