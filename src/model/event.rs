use std::collections::{BTreeMap, BTreeSet};

use super::{Actor, Contract, Number, Reply, Slot, Ticket, Verdict};

/// Everything that can make the daemon decide something, but for the words of a person.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The judge spoke.
    Judged(Verdict, Load),
    /// A starting release passed its probes; what it offers, and what the active one does.
    Ready(Ticket, Readiness),
    /// A starting release can not become ready; why.
    NotReady(Ticket, String),
    /// The release that was asked, answered.
    Probed(Ticket, Reply),
    /// New work goes where the ticket said.
    Routed(Ticket),
    /// The release that was to be drained or cut has nothing left in flight.
    Emptied(Ticket, Toll),
    /// The release in charge after a rollback keeps the promise; the numbers.
    Recovered(Number, String),
    /// The deadline passed.
    Due,
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Bring a new release.
    Deploy(Deploy),
    /// Go back to the previous release.
    Rollback {
        /// Without a drain.
        cut: bool,
        /// Why.
        because: String,
    },
    /// Hands off: no rollback by the daemon until resumed.
    Hold {
        /// Why.
        because: String,
    },
    /// The daemon may act again.
    Resume {
        /// Why.
        because: String,
    },
}

/// The particulars of a deploy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Deploy {
    /// What the operator calls the release.
    pub version: String,
    /// What it runs from.
    pub artifact: Option<String>,
    /// Settings for its environment.
    pub set: BTreeMap<String, String>,
    /// Where to run it; a free slot by default.
    pub slot: Option<Slot>,
    /// On a breach page and hold; never go back.
    pub freeze: bool,
    /// Despite a quarantine, a dropped protocol version, or a trial that is held.
    pub force: bool,
}

/// A command, and who gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Who.
    pub by: Actor,
    /// What.
    pub command: Command,
}

/// What a deploy learned before the new release got traffic.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readiness {
    /// What the new release offers. `None` where the probe does not speak MCP.
    pub new: Option<Contract>,
    /// What the active one offers.
    pub active: Option<Contract>,
    /// Protocol versions that live sessions of the active one have negotiated.
    pub in_use: BTreeSet<String>,
}

/// What a release carries at the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Load {
    /// Live sessions, of both eras.
    pub sessions: u64,
    /// Open requests, without streams that only listen.
    pub in_flight: u64,
    /// Requests a second.
    pub rate: f64,
    /// How long a session lasts on the average, in seconds.
    pub life: f64,
}

/// What leaving a release cost its clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Toll {
    /// Open requests that got an error of ours as their answer.
    pub answered: u64,
    /// Sessions that were ended.
    pub ended: u64,
    /// Streams that were closed.
    pub streams: u64,
}
