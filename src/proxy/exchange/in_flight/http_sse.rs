//! What an exchange of the HTTP+SSE transport (2024-11-05) does besides: its answers come on a stream.

use std::sync::atomic::Ordering;

use crate::mcp::message::same_id;
use crate::model::Outcome;
use crate::proxy::exchange::in_flight::{ExchangeKind, InFlight};

impl InFlight {
    /// The client cancelled a request: no answer may come.
    pub(in crate::proxy) fn cancel(&mut self, id: &str) {
        self.sync_parsed();
        if let Some(index) = self.pending.iter().position(|request| same_id(&request.id, id)) {
            let request = self.pending.swap_remove(index);
            self.record_outcome(&request, Outcome::Neutral);
        }
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
