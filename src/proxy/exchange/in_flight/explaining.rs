//! Keeps the error messages of some failed requests. A request that does not fail costs nothing here.

use http::StatusCode;

use crate::clock::monotonic;
use crate::mcp::error_text::{error_text, without_arguments};
use crate::model::{FailedCall, Outcome};
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::parsed_body::lock_parsed;
use crate::proxy::exchange::pending::PendingRequest;
use crate::proxy::exchange::unexplained_failure::UnexplainedFailure;

/// Failed requests of one exchange that are explained.
const FAILURES_MAX: usize = 4;
/// Bytes of a body without JSON-RPC that are read.
const BODY_READ_MAX: usize = 16 * 1024;
/// Stands in place of a message that the proxy could not read.
const NO_TEXT: &str = "(the answer has no text, or came in parts)";
/// Stands in place of a message whose arguments cannot be masked.
const NOT_MASKED: &str = "(not kept: the request was too large to mask its arguments)";

impl InFlight {
    /// Remembers a request that failed, until its answer was read.
    pub(super) fn note_failure(&mut self, id: &str, class: Outcome, code: Option<i64>) {
        let failed =
            matches!(class, Outcome::ServerFault | Outcome::ToolFault | Outcome::ClientFault);
        if !failed || self.unexplained.len() >= FAILURES_MAX {
            return;
        }
        let parsed = lock_parsed(&self.parsed);
        let request = parsed.messages.iter().find(|it| it.id.as_deref() == Some(id));
        let method = request.and_then(|it| it.method.clone()).unwrap_or_default();
        let name = request.and_then(|it| it.name.clone()).unwrap_or_default();
        drop(parsed);
        let call = FailedCall { method, name, code, message: String::new() };
        self.unexplained.push(UnexplainedFailure { id: id.into(), call, class });
    }

    /// Whether a request failed whose message is not known yet.
    pub(in crate::proxy) fn has_unexplained(&self) -> bool {
        !self.unexplained.is_empty()
    }

    /// Takes the messages of the failed requests from the bytes that had their responses.
    pub(in crate::proxy) fn explain_failures(&mut self, body: &[u8]) {
        for failure in std::mem::take(&mut self.unexplained) {
            let id = failure.id.clone();
            self.keep_error(failure, || {
                error_text(body, &id).unwrap_or_else(|| NO_TEXT.to_owned())
            });
        }
    }

    /// What a response without JSON-RPC says about requests that it leaves without an answer.
    pub(in crate::proxy) fn set_failure_status(&mut self, status: StatusCode, body: &[u8]) {
        if status.is_success() {
            return;
        }
        let body = body.get(..body.len().min(BODY_READ_MAX)).unwrap_or_default();
        let text = String::from_utf8_lossy(body);
        self.failure_words = Some(match text.trim() {
            "" => format!("HTTP status {}", status.as_u16()),
            text => format!("HTTP status {}: {text}", status.as_u16()),
        });
    }

    /// The requests that failed got no answer.
    pub(super) fn explain_unanswered(&mut self) {
        let words = self.failure_words.take();
        if self.unexplained.is_empty() {
            return;
        }
        let words = match (self.unreachable, words) {
            (true, _) => "no connection to the release".to_owned(),
            (false, words) => words.unwrap_or_else(|| "no answer to this request".to_owned()),
        };
        for failure in std::mem::take(&mut self.unexplained) {
            self.keep_error(failure, || words.clone());
        }
    }

    /// The requests that wait are past their deadline.
    pub(super) fn explain_deadline(&mut self) {
        let late = self.pending.iter().filter(|request| !self.was_cancelled(request));
        let ids: Vec<_> =
            late.map(|it: &PendingRequest| it.id.clone()).take(FAILURES_MAX).collect();
        for id in ids {
            self.note_failure(&id, Outcome::ServerFault, None);
        }
        let words = format!("no answer within {} ms", self.deadline.as_millis());
        for failure in std::mem::take(&mut self.unexplained) {
            self.keep_error(failure, || words.clone());
        }
    }

    fn keep_error(&self, failure: UnexplainedFailure, message: impl FnOnce() -> String) {
        let UnexplainedFailure { id, call, class } = failure;
        // Of a body that was too large to keep, the arguments are not known.
        let message = || {
            let body = self.client_body.as_deref();
            let masked = body.map(|body| without_arguments(&message(), body, &id));
            masked.unwrap_or_else(|| NOT_MASKED.to_owned())
        };
        self.backend.error_samples.record(call, class, monotonic(), message);
    }
}
