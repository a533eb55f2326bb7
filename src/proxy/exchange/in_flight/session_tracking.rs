//! What an exchange tells its session, and what it learns about it.

use http::{Method, StatusCode};

use crate::mcp::message::Message;
use crate::mcp::{Answered, ResponseContent, session_lost};
use crate::model::Outcome;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight, SERVER_REQUESTS_MAX};
use crate::proxy::exchange::parsed_body::lock_parsed;
use crate::proxy::exchange::pending::TaskEffect;
use crate::proxy::session::Sessions;

impl InFlight {
    /// Records in the session which requests the client cancels in this exchange.
    pub(in crate::proxy) fn record_cancellations(&self, sessions: &Sessions) {
        let Some(session) = &self.session else { return };
        let parsed = lock_parsed(&self.parsed);
        let cancellations =
            parsed.messages.iter().filter(|it| it.id.is_none() && it.request_id.is_some());
        cancellations
            .filter_map(|it| it.request_id.as_deref())
            .for_each(|id| sessions.record_cancellation(session, id));
    }

    /// Tracks requests of the server: an open one keeps the session at its release.
    pub(super) fn track_server_request(&mut self, message: &Message) {
        let Some(session) = &self.session else { return };
        let generation = self.generation;
        match (message.method.as_deref(), &message.id, &message.request_id) {
            (Some(_), Some(id), _) => {
                session.with_machine(|life| life.server_request_opened(generation, id));
                if self.kind == ExchangeKind::Call
                    && self.server_requests.len() < SERVER_REQUESTS_MAX
                {
                    self.server_requests.push(id.clone());
                }
            }
            (Some("notifications/cancelled"), None, Some(id)) => {
                session.with_machine(|life| life.server_request_closed(generation, id));
            }
            _ => (),
        }
    }

    pub(super) fn track_task(&self, task: &TaskEffect, message: &Message) {
        let Some(session) = self.session.as_ref().filter(|_| message.has_result) else { return };
        let generation = self.generation;
        let is_finished = |status| matches!(status, Some("completed" | "failed" | "cancelled"));
        match task {
            TaskEffect::Starts if session.supports_tasks() => {
                session.with_machine(|life| life.task_started(generation));
            }
            TaskEffect::Ends(id) => session.with_machine(|life| life.task_ended(generation, id)),
            TaskEffect::ReportsStatus(id) if is_finished(message.task_status.as_deref()) => {
                session.with_machine(|life| life.task_ended(generation, id));
            }
            TaskEffect::Unchanged | TaskEffect::Starts | TaskEffect::ReportsStatus(_) => (),
        }
    }

    /// The release ended the stream early; the client resumes it with a GET.
    pub(in crate::proxy) fn suspend_for_resume(&mut self) {
        if let Some(session) = self.session.clone() {
            let generation = self.generation;
            self.pending_ids().into_iter().for_each(|id| session.add_detached(generation, id));
        }
        self.finish(Outcome::Neutral);
    }

    /// Whether this response, to a request with this method, says that the release has lost the
    /// session of this exchange.
    pub(in crate::proxy) fn is_lost(
        &self,
        method: &Method,
        status: StatusCode,
        body: &[u8],
    ) -> bool {
        let status = status.as_u16();
        // Do not parse the bodies of successful responses: they are many, and say nothing about it.
        if status < 400 || self.session.is_none() || self.initialize_body.is_some() {
            return false;
        }
        session_lost(&Answered {
            method,
            in_session: true,
            status,
            content: &ResponseContent::of(body),
        })
    }

    /// Whether the release lost a session for which it had responded before.
    pub(in crate::proxy) fn lost_a_live_one(&self) -> bool {
        self.lost && self.session.as_ref().is_some_and(|session| session.is_known())
    }
}
