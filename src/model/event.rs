use crate::model::actor::Actor;
use crate::model::deploy_request::DeployRequest;
use crate::model::drain_cost::DrainCost;
use crate::model::observation::ProbeResult;
use crate::model::readiness_report::ReadinessReport;
use crate::model::release::ReleaseNumber;
use crate::model::release_load::ReleaseLoad;
use crate::model::ticket::Ticket;
use crate::model::trial::RampStep;
use crate::model::verdict::Verdict;

/// Everything that can lead to a decision, except an operator's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The judge reports a verdict.
    Judged(Verdict, ReleaseLoad),
    /// Another program runs in place of this release, without a deploy through the daemon; what
    /// it calls itself, where that is known, and how the daemon noticed.
    Replaced(ReleaseNumber, Option<String>, String),
    /// A starting release passed its probes; what it offers, and what the active one does.
    Ready(Ticket, Box<ReadinessReport>),
    /// A starting release cannot become ready; why.
    NotReady(Ticket, String),
    /// The result of the probe before a rollback.
    Probed(Ticket, ProbeResult),
    /// The artifact of the rollback target differs from the deployed one; how.
    ArtifactChanged(Ticket, String),
    /// New work goes to the release of the ticket.
    Routed(Ticket),
    /// The release under drain or cut has nothing left in flight.
    NothingInFlight(Ticket, DrainCost),
    /// The active release meets its objectives after a rollback, or answers its probes where there
    /// are no requests: the rest of a sentence about it.
    Recovered(ReleaseNumber, String),
    /// The deadline passed, and the active release was not seen to meet its objectives; what it failed last.
    NotRecovered(String),
    /// The ramp can go on with this step; why.
    StepDue(RampStep, String),
    /// The deadline passed.
    DeadlinePassed,
}

/// An operator's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Bring a new release.
    Deploy(DeployRequest),
    /// Go back to the previous release.
    Rollback {
        /// Without a drain.
        cut: bool,
        /// Also to a release whose artifact is not what was deployed.
        force: bool,
        /// Why.
        because: String,
    },
    /// End the ramp or the bake: the release on trial is accepted.
    Promote {
        /// Why.
        because: String,
    },
    /// No automatic rollback until resumed.
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

/// A command, and who gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandRequest {
    /// Who.
    pub by: Actor,
    /// What.
    pub command: Command,
}
