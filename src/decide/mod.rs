//! The state machine: an event in, a decision out. Pure: no clock, no network, no disk.
//!
//! ```text
//!            deploy              ready                 routed
//!  Steady ----------> Starting --------> Promoting -------------> Baking --accepted--> Steady
//!    ^                   |                                          |
//!    |<-----failed-------+              breach, or the operator ----+
//!    |                                                  v
//!    |<-----abandoned---- Reviving <--no answer-- Confirming (does the warm release answer?)
//!    |                       |                          |
//!    |                       +----------+---------------+
//!    |                                  v
//!    +--recovered-- Recovering <-- Emptying <--routed-- Returning
//! ```
//!
//! With a ramp, Promoting and Baking leave most users on the previous release, the control. Each step
//! is in the timeline before the proxy assigns more of them; the control follows when it is accepted.
//!
//! Edges that the picture leaves out:
//! - The first deploy leaves Empty. A deploy with `--over-breach` also leaves a blocked or held
//!   Baking; the last accepted release gets the traffic back first.
//! - A rollback also leaves Steady, if a warm release runs: that of an operator, and where `after_bake`
//!   says so that of a verdict.
//! - A release that replaces the active one without a deploy leads from Steady or Baking to Baking.
//! - A hold leads from Confirming and Reviving back to Baking, unless an operator requested the rollback.
//! - `unrecovered` leads from Recovering to Steady; the bad release stays warm.
//!
//! [`Watch::on_command`] and [`Watch::on_event`] decide and change nothing. [`Watch::apply`] is the
//! only way to change the state, and it takes the events that the timeline holds. So the timeline
//! restores a service, and a decision that cannot be recorded does not happen.

mod after_bake;
mod commands;
mod deploy;
mod events;
mod late_breach;
mod move_sessions;
mod phase;
mod ramp;
mod ramp_choice;
mod ramp_steps;
mod readiness;
mod recovery;
mod strategy;
mod transitions;
mod watch;

pub use after_bake::{AfterBake, SteadyWatch};
pub use commands::CommandRefused;
pub use move_sessions::MoveSessions;
pub use phase::{PendingRollback, Phase, Rollback};
pub use ramp::{ON_TRIAL_HELD_MIN, ON_TRIAL_MIN, Ramp, RampSettings, RampShares, RampSteps};
pub use ramp_choice::{AUTO_SHARES_PPM, USERS_MIN};
pub use strategy::{StrategyChoice, choose_strategy};
pub use watch::{Policy, Watch};
