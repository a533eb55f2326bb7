//! When requests become slow, fail, or are no longer wanted.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::model::Outcome;
use crate::proxy::exchange::cancellation::cancelled;
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::pending::PendingRequest;

/// After this share of the deadline, a client that disconnects gave up on the release.
const GAVE_UP_SHARE: f64 = 0.9;

/// How often it checks whether the client cancelled what is open, and what is open for too long.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

impl InFlight {
    /// Counts requests as slow or failed at the moment when they become so.
    pub(in crate::proxy) fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = self.timer.as_mut() {
            if timer.as_mut().poll(cx) == Poll::Pending {
                return;
            }
            self.sync_parsed();
            if !self.deadline_passed {
                self.count_late();
                self.count_all_overdue();
            }
            self.note_abandoned();
            match (self.next_alarm(), &mut self.timer) {
                (Some(at), Some(timer)) => timer.as_mut().reset(at),
                _ => self.timer = None,
            }
        }
    }

    fn next_alarm(&self) -> Option<Instant> {
        let may_cancel = self.session.is_some() && !self.abandoned;
        let may_be_overdue =
            !self.deadline_passed && self.pending.iter().any(|request| !request.is_overdue);
        let poll = (may_cancel || may_be_overdue).then(|| monotonic() + POLL_INTERVAL);
        if self.deadline_passed {
            return poll;
        }
        let deadline = self.started + self.deadline;
        let slow = self.slow.filter(|_| !self.counted_slow).map(|slow| self.started + slow);
        [slow, poll].into_iter().flatten().chain([deadline]).min()
    }

    fn count_late(&mut self) {
        if self.client_owes_reply() {
            self.started = monotonic();
        }
        let elapsed = self.started.elapsed();
        if self.slow.is_some_and(|slow| slow <= elapsed) && !self.counted_slow {
            self.counted_slow = true;
            let still_wanted = self.pending.iter().filter(|request| !self.was_cancelled(request));
            still_wanted.for_each(|request| self.record_latency(request, true));
        }
        if elapsed < self.deadline {
            return;
        }
        let given_up = self.pending.iter().filter(|it| self.was_cancelled(it));
        given_up.for_each(|request| self.count_given_up(request));
        self.deadline_passed = true;
        let mut failed = false;
        let counted = self.pending.iter().filter(|_| self.unconfirmed.is_none());
        for request in counted {
            let cancelled = self.was_cancelled(request);
            failed |= !cancelled;
            let class = if cancelled { Outcome::Neutral } else { Outcome::ServerFault };
            let class = self.charge(request, class);
            self.backend.outcomes.count(Some(&request.counters), class);
            self.count_on_trial(request, class);
        }
        if failed {
            self.keep_for_shadow(Outcome::ServerFault);
            self.explain_deadline();
        }
    }

    /// Some servers never answer a cancelled request, nor end its stream. No drain waits for that.
    fn note_abandoned(&mut self) {
        let is_unwanted = |request| {
            self.cancelled_at(request).is_some()
                || self.deadline_passed && self.was_cancelled(request)
        };
        if self.abandoned || self.pending.is_empty() || !self.pending.iter().all(is_unwanted) {
            return;
        }
        self.pending.iter().for_each(|request| self.count_given_up(request));
        self.abandoned = true;
        // Its session is not busy with it: it may leave a release that drains.
        self.session_guard = None;
        self.backend.in_flight_requests.fetch_sub(1, Ordering::Relaxed);
        self.backend.open_streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that gets an error because its release was cut. Nobody waits for those that the
    /// client cancelled.
    pub(in crate::proxy) fn count_error_response(&self) {
        if !self.abandoned {
            self.backend.count_error_response();
        }
    }

    /// When the client cancelled the request, or left.
    pub(super) fn given_up_at(&self, request: &PendingRequest) -> Option<Instant> {
        let half_closed_at = self.client.as_ref().and_then(|client| client.half_closed_at());
        self.cancelled_at(request).or(half_closed_at).or(self.client_left_at)
    }

    /// Ready when a drain ends the exchange, because nothing waits for it.
    pub(in crate::proxy) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.abandoned {
            return Poll::Pending;
        }
        let end = &self.backend.end_unwanted;
        self.end_unwanted.get_or_insert_with(|| cancelled(end)).as_mut().poll(cx)
    }

    /// When the client cancelled the request in its session.
    fn cancelled_at(&self, request: &PendingRequest) -> Option<Instant> {
        let session = self.session.as_ref()?;
        session.with_requests(|it| it.cancelled_at(&request.id))
    }

    /// Whether the client cancelled the request, or closed its half of the connection and may be gone,
    /// while a response could still arrive in time. Servers respond to a cancelled request with various
    /// codes, or never.
    pub(super) fn was_cancelled(&self, request: &PendingRequest) -> bool {
        self.given_up_at(request).is_some_and(|at| !self.waited_in_vain(at))
    }

    /// Whether a client that disconnected at this time had waited in vain. Client timeouts, often 60 s
    /// like the deadline, must not hide that a release hangs.
    pub(super) fn waited_in_vain(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.started) >= self.deadline.mul_f64(GAVE_UP_SHARE)
    }
}
