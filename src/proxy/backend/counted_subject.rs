//! Where the outcomes of a subject's requests are counted, besides its release.

use std::sync::Arc;

use crate::mcp::methods::INITIALIZE;
use crate::model::{Outcome, ReleaseNumber, call_number};
use crate::proxy::backend::Backend;
use crate::proxy::backend::answer_profile::Unusual;
use crate::proxy::backend::failing_sources::{FailingSources, Source};
use crate::proxy::backend::recent_subjects::RecentSubjects;
use crate::proxy::backend::trial_cells::CellCounts;
use crate::proxy::backend::trial_subject::TrialSubject;

/// The subject of the requests of one exchange.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct CountedSubject {
    /// The failing sources of the release that it goes to.
    pub failing: Arc<FailingSources>,
    /// Where it comes from.
    pub source: Source,
    /// What else it is counted for.
    pub purpose: Purpose,
    /// The release on trial that did not open it, so that it stayed where it was.
    pub refused_by: Option<Box<RefusedBy>>,
}

/// A release on trial that did not open a session that should have moved to it.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct RefusedBy {
    /// The release.
    pub backend: Arc<Backend>,
    /// The session, as its requests would count there.
    pub subject: CountedSubject,
    /// What that says about the release, if the other one serves the session.
    pub outcome: Outcome,
}

/// What the requests of a subject tell.
#[derive(Debug, Clone)]
pub(in crate::proxy) enum Purpose {
    /// The trial that is under way.
    Trial(TrialSubject),
    /// What fails at this release while there is no trial, for the next one.
    NextTrial(Arc<RecentSubjects>, ReleaseNumber),
    /// Nothing: its coin did not put it where it goes.
    Nothing,
}

/// A request of a subject, until its outcome is known.
#[derive(Debug)]
pub(in crate::proxy) struct CountedRequest {
    call: u64,
    cell: Option<Arc<CellCounts>>,
}

impl CountedSubject {
    /// A request of this call starts. Give what it returns to [`Self::end`].
    pub(in crate::proxy) fn start(&self, method: &str, name: &str) -> CountedRequest {
        let call = call_number(method, name);
        self.failing.start(&self.source);
        let cell = match &self.purpose {
            Purpose::Trial(subject) => Some(subject.start(call)),
            Purpose::NextTrial(..) | Purpose::Nothing => None,
        };
        CountedRequest { call, cell }
    }

    /// The outcome of a request is known.
    pub(in crate::proxy) fn end(&self, request: &CountedRequest, outcome: Outcome) {
        self.failing.end(&self.source, request.call, outcome);
        // A session that the other release serves is good, and so are its credentials.
        if let (Outcome::Ok | Outcome::ToolFault, Some(refused_by)) = (outcome, &self.refused_by) {
            refused_by.count();
        }
        match (&self.purpose, &request.cell) {
            (Purpose::Trial(subject), Some(cell)) => subject.end(cell, outcome),
            (Purpose::NextTrial(recent, release), _) => {
                let failed = match outcome {
                    Outcome::Ok => false,
                    Outcome::ServerFault | Outcome::ToolFault => true,
                    Outcome::ClientFault | Outcome::Neutral => return,
                };
                recent.ended(*release, (self.source.identity, request.call), failed);
            }
            _ => (),
        }
    }

    /// The answer to a request is not as it was at the release before.
    pub(in crate::proxy) fn record_unusual(&self, request: &CountedRequest, unusual: Unusual) {
        self.failing.record_unusual(&self.source, request.call, unusual);
    }

    /// A request has no answer after far longer than usual.
    pub(in crate::proxy) fn record_overdue(&self, request: &CountedRequest) {
        self.failing.record_overdue(&self.source, request.call);
    }

    /// A request that was overdue is answered.
    pub(in crate::proxy) fn record_answered_late(&self, request: &CountedRequest) {
        self.failing.record_answered_late(&self.source, request.call);
    }

    /// Whether a request was slow is known.
    pub(in crate::proxy) fn record_latency(&self, request: &CountedRequest, slow: bool) {
        self.failing.record_latency(&self.source, request.call, slow);
    }
}

impl RefusedBy {
    /// Counts that the release did not open the session.
    fn count(&self) {
        let call = self.backend.outcomes.for_call(INITIALIZE, "");
        self.backend.outcomes.count(Some(&call), self.outcome);
        self.subject.end(&self.subject.start(INITIALIZE, ""), self.outcome);
    }
}
