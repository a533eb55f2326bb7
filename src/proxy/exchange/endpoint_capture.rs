//! Learns from the first event of a stream that it is a session of the HTTP+SSE transport
//! (2024-11-05), and where its client posts.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode, response};

use crate::mcp::headers::{is_modern, is_readable_stream};
use crate::mcp::sse_endpoint;
use crate::mcp::sse_splitter::{SseEvent, SseSplitter, fields};
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::sse_sessions::OpenSseSession;
use crate::proxy::exchange::state::ProxyState;

/// The bytes of a stream in which the event is looked for.
const BYTES_MAX: usize = 16 * 1024;

/// The start of a stream.
pub(super) struct EndpointCapture {
    state: Arc<ProxyState>,
    request: Arc<ClientRequest>,
    splitter: SseSplitter,
    seen: usize,
}

/// What a part of the start says.
pub(super) struct Captured {
    /// The bytes for the client.
    pub(super) data: Bytes,
    /// The session, where the stream is one.
    pub(super) session: Option<OpenSseSession>,
    /// Whether it is known now whether it is one.
    pub(super) is_known: bool,
}

impl EndpointCapture {
    /// `None` for a response that is no such stream.
    pub(super) fn new(
        state: &Arc<ProxyState>,
        request: &Arc<ClientRequest>,
        response: &response::Parts,
    ) -> Option<Self> {
        let is_stream = request.head.method == Method::GET
            && response.status == StatusCode::OK
            && is_readable_stream(&response.headers)
            && !is_modern(&request.head.headers);
        is_stream.then(|| Self {
            state: Arc::clone(state),
            request: Arc::clone(request),
            splitter: SseSplitter::default(),
            seen: 0,
        })
    }

    /// Reads the next bytes of the stream.
    pub(super) fn feed(&mut self, data: &[u8], backend: &Arc<Backend>) -> Captured {
        let (mut out, mut url, mut is_known) = (Vec::new(), None, false);
        self.seen += data.len();
        let stream_path = self.request.head.uri.path();
        self.splitter.feed(data, |event| {
            let (SseEvent::Whole(event) | SseEvent::Fragment(event)) = event;
            match sse_endpoint::endpoint_url(&event).filter(|_| !is_known) {
                Some(found) => {
                    let path = sse_endpoint::path_and_query(found, stream_path);
                    match names_slot(found, &backend.authority) {
                        true => out.extend(format!("event: endpoint\ndata: {path}\n\n").bytes()),
                        false => out.extend(&event),
                    }
                    (url, is_known) = (Some(path), true);
                }
                None => {
                    is_known |= fields(&event).any(|(name, _)| name == "data");
                    out.extend(&event);
                }
            }
        });
        is_known |= self.seen > BYTES_MAX;
        if is_known {
            out.extend(self.splitter.take_rest());
        }
        let session = url.map(|url| {
            let view = self.state.router.view.load();
            self.state.count_new_session(&view.service.limits, &self.request);
            self.state.sse_sessions.open(stream_path, &url, backend)
        });
        Captured { data: out.into(), session, is_known }
    }

    /// What the client did not get yet.
    pub(super) fn take_rest(&mut self) -> Bytes {
        self.splitter.take_rest().into()
    }
}

/// Whether a URL names the slot of the release, which its client cannot reach.
fn names_slot(url: &str, slot: &str) -> bool {
    let rest = url.strip_prefix("http://").and_then(|rest| rest.strip_prefix(slot));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

impl std::fmt::Debug for EndpointCapture {
    /// Without the request: it may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointCapture").field("seen", &self.seen).finish_non_exhaustive()
    }
}
