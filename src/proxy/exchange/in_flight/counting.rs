//! Counts the outcome of each request: for its release and call, for a shadow call, and for a trial.

use crate::clock::monotonic;
use crate::model::Outcome;
use crate::proxy::backend::answer_profile::Unusual;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};
use crate::proxy::exchange::pending::{PendingRequest, TaskEffect};

impl InFlight {
    /// Keeps a failed request for a shadow call.
    pub(super) fn keep_for_shadow(&mut self, class: Outcome) {
        let failed = matches!(class, Outcome::ServerFault | Outcome::ToolFault);
        if let Some(sample) = self.sample.take().filter(|_| failed) {
            self.backend.samples.record(*sample, monotonic());
        }
    }

    /// Counts the outcome of a request for the trial, in the second in which it started.
    pub(super) fn count_on_trial(&self, request: &PendingRequest, class: Outcome) {
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted) {
            subject.end(counted, class);
        }
    }

    /// Counts the end of a request; `content` has the bytes of its answer, where there is one. Returns its
    /// class, after what the client did is considered.
    pub(super) fn record_outcome(
        &mut self,
        request: &PendingRequest,
        class: Outcome,
        content: Option<u64>,
    ) -> Outcome {
        let failed = class == Outcome::ServerFault;
        let class = if failed && self.was_cancelled(request) { Outcome::Neutral } else { class };
        let class = self.charge(request, class);
        let is_answered = matches!(class, Outcome::Ok | Outcome::ToolFault);
        if self.kind == ExchangeKind::Call && is_answered {
            self.count_answer(request, content.filter(|_| class == Outcome::Ok));
        }
        if class == Outcome::Neutral {
            self.count_given_up(request);
        }
        if !self.deadline_passed {
            self.backend.outcomes.count(Some(&request.counters), class);
            self.count_on_trial(request, class);
            self.keep_for_shadow(class);
        }
        let timed = matches!(class, Outcome::Ok | Outcome::ToolFault | Outcome::ServerFault);
        if let Some(slow) =
            self.slow.filter(|_| timed && !self.counted_slow && self.kind == ExchangeKind::Call)
        {
            self.record_latency(request, slow <= self.started.elapsed());
        }
        class
    }

    /// Counts the size of an answer, and how long it took.
    fn count_answer(&self, request: &PendingRequest, content: Option<u64>) {
        let content = content.filter(|_| matches!(request.task, TaskEffect::Unchanged));
        let took = self.started.elapsed();
        let unusual = self.backend.outcomes.count_answer(&request.counters, content, took);
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted)
            && unusual != Unusual::default()
        {
            subject.record_unusual(counted, unusual);
        }
    }

    /// Counts a request that its client gave up: the answer would have taken longer than it waited.
    pub(super) fn count_given_up(&self, request: &PendingRequest) {
        let is_open = self.kind == ExchangeKind::Call
            && !self.abandoned
            && !self.deadline_passed
            && self.unconfirmed.is_none()
            && !self.client_owes_reply()
            && !self.backend.cut.is_cancelled();
        let Some(at) = self.given_up_at(request).filter(|_| is_open) else { return };
        let waited = at.saturating_duration_since(self.started);
        if self.backend.outcomes.count_given_up(&request.counters, waited)
            && let (Some(subject), Some(counted)) = (&self.counted, &request.counted)
        {
            subject.record_given_up(counted);
        }
    }

    /// Counts whether a request was slow.
    pub(super) fn record_latency(&self, request: &PendingRequest, slow: bool) {
        self.backend.outcomes.record_latency(Some(&request.counters), slow);
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted) {
            subject.record_latency(counted, slow);
        }
    }
}
