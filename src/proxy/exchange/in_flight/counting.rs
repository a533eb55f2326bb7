//! Counts the outcome of each request: for its release and call, for a shadow call, and for a trial.

use std::time::Duration;

use tokio::time::Instant;

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
        let (outcomes, was_overdue) = (&self.backend.outcomes, request.is_overdue);
        let unusual = outcomes.count_answer(&request.counters, content, took, was_overdue);
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted) {
            if unusual != Unusual::default() {
                subject.record_unusual(counted, unusual);
            }
            if was_overdue {
                subject.record_answered_late(counted);
            }
        }
    }

    /// Counts a request that its client gave up: the answer would have taken longer than it waited.
    pub(super) fn count_given_up(&self, request: &PendingRequest) {
        let given_up_at = self.given_up_at(request).filter(|_| self.owes_answers());
        let Some(at) = given_up_at else { return };
        request.counters.record_given_up(self.waited_until(at));
        if !request.is_overdue {
            self.count_overdue(request, at);
        }
    }

    /// Counts requests as slower as soon as they are open for so long: a release that hangs must not go
    /// unseen until the deadline. A client that closed its half of the connection may not wait any more.
    pub(super) fn count_all_overdue(&mut self) {
        if !self.owes_answers() {
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        for request in pending.iter_mut().filter(|request| !request.is_overdue) {
            let at = self.given_up_at(request).unwrap_or_else(monotonic);
            request.is_overdue = self.count_overdue(request, at);
        }
        self.pending = pending;
    }

    /// Whether the release owes its requests an answer, as far as is known.
    fn owes_answers(&self) -> bool {
        self.kind == ExchangeKind::Call
            && !self.abandoned
            && !self.deadline_passed
            && self.unconfirmed.is_none()
            && !self.client_owes_reply()
            && !self.backend.cut.is_cancelled()
    }

    fn count_overdue(&self, request: &PendingRequest, at: Instant) -> bool {
        let waited = self.waited_until(at);
        let is_overdue = self.backend.outcomes.count_overdue(&request.counters, waited);
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted)
            && is_overdue
        {
            subject.record_overdue(counted);
        }
        is_overdue
    }

    fn waited_until(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// Counts whether a request was slow.
    pub(super) fn record_latency(&self, request: &PendingRequest, slow: bool) {
        self.backend.outcomes.record_latency(Some(&request.counters), slow);
        if let (Some(subject), Some(counted)) = (&self.counted, &request.counted) {
            subject.record_latency(counted, slow);
        }
    }
}
