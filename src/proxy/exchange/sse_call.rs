//! One POST of an HTTP+SSE session, on its way to the release.

use crate::proxy::exchange::in_flight::InFlight;
use crate::proxy::exchange::sse_sessions::SseSession;

/// A POST that the release has not taken yet, although its answer may come on the stream already.
/// Where it is dropped, its client has left: no one waits for the answer.
#[derive(Debug)]
pub(super) struct SseCall<'a> {
    session: &'a SseSession,
    number: u64,
    is_on_its_way: bool,
}

impl<'a> SseCall<'a> {
    /// The session waits for the answers to it from now on.
    pub(super) fn start(session: &'a SseSession, in_flight: InFlight) -> Self {
        Self { session, number: session.add(in_flight), is_on_its_way: true }
    }

    /// The release took it.
    pub(super) fn accepted(mut self) {
        self.is_on_its_way = false;
        self.session.accepted(self.number);
    }

    /// The end of the stream says what became of it.
    pub(super) fn leave_to_stream(mut self) {
        self.is_on_its_way = false;
    }

    /// The release did not take it. `None` where it was answered on the stream, or that has ended.
    pub(super) fn take(mut self) -> Option<InFlight> {
        self.is_on_its_way = false;
        self.session.take(self.number)
    }
}

impl Drop for SseCall<'_> {
    fn drop(&mut self) {
        if self.is_on_its_way {
            drop(self.session.take(self.number));
        }
    }
}
