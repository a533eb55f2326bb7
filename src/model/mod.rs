//! The nouns: their serialisation, their texts, and comparisons of their values.
//!
//! Everything here can be written to the timeline and read back to the same value, so that a
//! decision can be replayed from the record alone.

mod active_users;
mod actor;
mod basis;
mod block_sources;
mod bound;
mod closest_match;
mod contract;
mod contract_diff;
mod decision;
mod deploy_request;
mod drain_cost;
mod event;
mod failed_call;
mod migration_refused;
mod moment;
mod observation;
mod outcome;
mod output_section;
mod outside_links;
mod printable;
mod ramp_choice;
mod readiness_report;
mod release;
mod release_load;
mod strategy;
mod ticket;
mod time_text;
mod timeline;
mod trial;
mod trigger;
mod usual_answers;
mod verdict;

pub use active_users::ActiveUsers;
pub use actor::Actor;
pub(crate) use basis::format_evidence;
pub use basis::{ArmNumbers, Basis, Comparison, ComparisonRule, ObjectiveNumbers, Rule};
pub use block_sources::{BlockSources, SourceCounts};
pub use bound::{Bound, BoundUse};
pub use closest_match::closest_match;
pub use contract::{Contract, ContractPart, Era, ToolSchema};
pub use decision::{Decision, Effect, JudgeTarget};
pub use deploy_request::{DeployRequest, Waiver};
pub use drain_cost::DrainCost;
pub use event::{Command, CommandRequest, Event};
pub use failed_call::FailedCall;
pub use migration_refused::MigrationRefused;
pub use moment::Moment;
pub use outcome::{CallKey, Counts, McpPath, Outcome, Unjudged};
pub use output_section::{output_section, parse_output_section};
pub use outside_links::{OutsideLink, OutsideLinks};
pub use printable::{EscapingWriter, escape_json, escape_unsafe, is_unsafe_to_print};
pub use ramp_choice::{RampChoice, RampReason};
pub use readiness_report::ReadinessReport;
pub use release::{Release, ReleaseNumber, Slot, VERSION_MAX, is_valid_version};
pub use release_load::ReleaseLoad;
pub use strategy::{ExpectedFailures, Strategy, StrategyReason};
pub use ticket::Ticket;
pub use time_text::format_seconds;
pub use trial::{Arm, RampStep, TrialCell, WHOLE_PPM, call_number, coin, coin_ppm};
pub use trigger::Trigger;
pub use usual_answers::UsualAnswers;
pub use verdict::{Evidence, Finding, Severity, Verdict};

pub use crate::model::contract_diff::{BreakingChange, ContractDiff};
pub use crate::model::observation::{
    History, Observation, ProbeResult, ScrapeResult, Signal, StartCause,
};
pub use crate::model::timeline::{CarriedOver, Guard, Hold, TimelineEntry, TimelineEvent};
