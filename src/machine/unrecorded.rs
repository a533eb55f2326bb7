//! What happens while the timeline cannot be written.
//!
//! Nothing is done that is not recorded, with one exception: where the release on trial is down, or fails
//! most requests, or an operator orders it, going back wins. The driver then keeps the entries, and writes
//! them once it can. What happens once and could not be recorded is decided again with the next block.

use crate::decide::Phase;
use crate::machine::input::{Pending, Proposal};
use crate::machine::{EVENTS_KEPT_MAX, ServiceMachine};
use crate::model::{Finding, Severity, TimelineEvent, Trigger};

impl ServiceMachine {
    /// Whether a proposal belongs to a rollback: it may use the space that is kept for that.
    pub fn is_rollback(&self, proposal: &Proposal) -> bool {
        match &proposal.decision.event {
            TimelineEvent::Detected { .. } => true,
            TimelineEvent::Reviving
            | TimelineEvent::Abandoned
            | TimelineEvent::Decided { .. }
            | TimelineEvent::Switched { .. }
            | TimelineEvent::Escalated(_)
            | TimelineEvent::Drained { .. }
            | TimelineEvent::Cut { .. }
            | TimelineEvent::Retried { .. }
            | TimelineEvent::Recovered
            | TimelineEvent::Unrecovered
            | TimelineEvent::Restored { .. } => is_going_back(self.watch.phase()),
            _ => false,
        }
    }

    /// Whether a proposal takes effect although it cannot be recorded yet.
    pub fn acts_unrecorded(&self, proposal: &Proposal) -> bool {
        match &proposal.decision.event {
            TimelineEvent::Detected { trigger: Trigger::Operator { .. }, .. } => true,
            TimelineEvent::Detected { trigger: Trigger::Verdict(verdict), .. } => {
                matches!(verdict.finding, Finding::Breach(Severity::Critical | Severity::Down))
            }
            _ => self.is_rollback(proposal),
        }
    }

    /// A proposal could not be written and has no effect. What happens once is decided again with the
    /// next block.
    pub fn not_recorded(&mut self, proposal: Proposal) {
        if let Some(source) = proposal.source
            && self.unrecorded.len() < EVENTS_KEPT_MAX
        {
            self.unrecorded.push_back(source);
        }
    }

    /// Before the decisions of a block, those that could not be recorded. While there are any, no deadline
    /// passes: it would say that what happened did not.
    pub(super) fn retry_unrecorded(&mut self) {
        self.queue.extend(self.unrecorded.drain(..));
    }

    /// Before anything else, the pauses: after a restart the time until the last entry counts as watched.
    pub(super) fn retry_unrecorded_pauses(&mut self) {
        let mut pauses = Vec::new();
        self.unrecorded.retain(|pending| {
            let is_pause = matches!(pending, Pending::Pause(_));
            pauses.extend(is_pause.then(|| pending.clone()));
            !is_pause
        });
        pauses.into_iter().rev().for_each(|pause| self.queue.push_front(pause));
    }

    pub(super) fn must_wait(&self, pending: &Pending) -> bool {
        !self.unrecorded.is_empty() && matches!(pending, Pending::Deadline | Pending::Recovery)
    }
}

/// Whether the traffic goes back, or is about to.
fn is_going_back(phase: &Phase) -> bool {
    match phase {
        Phase::Confirming(_)
        | Phase::Reviving(_)
        | Phase::Returning(_)
        | Phase::Emptying(_)
        | Phase::Recovering { .. } => true,
        Phase::Empty
        | Phase::Steady { .. }
        | Phase::Starting { .. }
        | Phase::Promoting { .. }
        | Phase::Baking { .. } => false,
    }
}
