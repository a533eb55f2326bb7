//! Exchanges of the HTTP+SSE transport (2024-11-05), whose answers come on a stream.

use std::sync::atomic::Ordering;

use crate::clock::monotonic;
use crate::mcp::message::same_id;
use crate::model::Outcome;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};

impl InFlight {
    /// The client cancelled a request: no answer may come. That is no fault of the release, unless the
    /// client waited in vain.
    pub(in crate::proxy) fn cancel(&mut self, id: &str) {
        self.sync_parsed();
        let in_vain = !self.client_owes_reply() && self.waited_in_vain(monotonic());
        let class = if in_vain { Outcome::ServerFault } else { Outcome::Neutral };
        self.client_left_at = (!in_vain).then(monotonic);
        if let Some(index) = self.pending.iter().position(|request| same_id(&request.id, id)) {
            let request = self.pending.swap_remove(index);
            let class = self.record_outcome(&request, class, None);
            self.note_failure(&request.id, class, None);
            self.explain_unanswered();
        }
        self.client_left_at = None;
    }

    /// Whether its requests waited until their deadline: they have their outcome.
    pub(in crate::proxy) fn is_overdue(&self) -> bool {
        self.deadline_passed
    }

    /// A stream beside the endpoint is one of MCP.
    pub(in crate::proxy) fn become_stream(&mut self) {
        if self.kind == ExchangeKind::NotMcp {
            self.decrement_gauges();
            self.kind = ExchangeKind::GetStream;
            self.backend.open_streams.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::Address;
    use crate::mcp::scan::MessageScanner;
    use crate::model::{Counts, ReleaseNumber};
    use crate::proxy::backend::Backend;
    use crate::proxy::exchange::parsed_body::{SharedParse, lock_parsed};

    const DEADLINE: Duration = Duration::from_secs(1);

    /// Cancels a request after this time. Returns the outcome and the error message that is kept.
    fn cancelled_after(time: Duration) -> (Counts, Vec<String>) {
        let text = include_str!("../../../../config.toml.example");
        let services = crate::config::parse("config.toml.example", text).unwrap().settings.services;
        let mut limits = services.into_values().next().unwrap().limits;
        limits.deadline = DEADLINE;
        let address = Address::Tcp(([127, 0, 0, 1], 1).into());
        let backend =
            Arc::new(Backend::new(ReleaseNumber(1), address, String::new(), Arc::default()));
        let parsed = SharedParse::default();
        let body = br#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;
        let read = |message| lock_parsed(&parsed).messages.push(message);
        MessageScanner::default().feed(body, read);
        let states = Arc::default();
        let kind = ExchangeKind::Call;
        let mut call = InFlight::new(Arc::clone(&backend), kind, parsed, states, &limits);
        call.client_body = Some(body.as_slice().into());
        call.started -= time;
        call.cancel("3");
        drop(call);
        let messages = backend.error_samples.latest(monotonic());
        (backend.outcomes.total(), messages.into_iter().map(|it| it.message).collect())
    }

    #[tokio::test]
    async fn a_cancellation_does_not_hide_that_a_release_hangs() {
        let (early, messages) = cancelled_after(DEADLINE / 2);
        assert_eq!((early.server_fault, early.neutral, messages.len()), (0, 1, 0));
        let (late, messages) = cancelled_after(DEADLINE.mul_f64(0.95));
        assert_eq!((late.server_fault, late.neutral), (1, 0));
        assert_eq!(messages, ["no answer to this request"]);
    }
}
