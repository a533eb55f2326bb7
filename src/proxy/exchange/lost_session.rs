//! A release that does not know a session any more, as one that died and runs again.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::mcp::{Answered, Said, session_lost};
use crate::proxy::exchange::handler::ProxyState;
use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::response::{ANSWER_AHEAD_MAX, joined, unless_left};

impl InFlight {
    /// Whether an answer of this release, to a request with this method, says that it does not know
    /// the session of this exchange.
    pub(in crate::proxy) fn is_lost(
        &self,
        method: &Method,
        status: StatusCode,
        body: &[u8],
    ) -> bool {
        let status = status.as_u16();
        // Bodies of good answers are many, and tell nothing.
        if status < 400 || self.session.is_none() || self.initialize_body.is_some() {
            return false;
        }
        session_lost(&Answered { method, in_session: true, status, said: &Said::of(body) })
    }

    /// Whether the session that the release does not know had answers from it before.
    pub(in crate::proxy) fn lost_a_live_one(&self) -> bool {
        self.lost && self.session.as_ref().is_some_and(|session| session.is_known())
    }
}

impl ProxyState {
    /// A release does not know a session any more, as one that died and runs again: the session is
    /// opened anew with the next request. `false` where it can not be.
    pub(in crate::proxy) fn forgot(&self, exchange: &InFlight) -> bool {
        let session = exchange.session.as_ref().filter(|_| self.pinned_reason().is_none());
        let Some(session) = session.filter(|session| session.snapshot().is_some()) else {
            return false;
        };
        session.with_machine(|life| life.mark_lost(exchange.generation));
        true
    }
}

/// What a release says to a client that wants to listen in a session and may not: so much of it as
/// was read, and whether it does not know the session. `None` when the release is left meanwhile, or
/// breaks off.
pub(in crate::proxy) async fn refused(
    exchange: &mut InFlight,
    status: StatusCode,
    body: &mut Incoming,
) -> Option<(VecDeque<Bytes>, bool)> {
    let (mut ready, mut size) = (VecDeque::new(), 0);
    while size < ANSWER_AHEAD_MAX {
        let Some(frame) = unless_left(exchange, body.frame()).await? else {
            let body = joined(ready);
            let lost = exchange.is_lost(&Method::GET, status, &body);
            return Some((VecDeque::from([body]), lost));
        };
        if let Ok(data) = frame.ok()?.into_data() {
            size += data.len();
            ready.push_back(data);
        }
    }
    Some((ready, false))
}
