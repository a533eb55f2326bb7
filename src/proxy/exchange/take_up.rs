//! Takes up the GET stream of a client again, whose release broke it: because the release crashed and
//! restarts, or another one takes over. Clients themselves try twice and then give up without a word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use crate::clock::monotonic;
use crate::mcp::headers::{LAST_EVENT_ID, is_readable_stream};
use crate::mcp::{Answered, ResponseContent, session_lost};
use crate::proxy::backend::Backend;
use crate::proxy::backend::body::{BackendBody, ReleaseBody, decoded};
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::exchange::state::{ProxyState, head_for_release};
use crate::proxy::routing::router::RouteError;
use crate::proxy::session::{ClientMessageKind, Session};

/// How long a stream is held for its release. A release may be rebuilt, or wait for its database.
pub(super) const HOLD_MAX: Duration = Duration::from_mins(5);
/// The first pause between two attempts, and the longest; each is twice as long as the one before.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(100);
pub(super) const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// The time limit of an attempt.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The bytes of a refusal that are read.
const REFUSAL_MAX: usize = 64 * 1024;

/// A stream to take up again.
pub(super) struct BrokenStream {
    pub(super) state: Arc<ProxyState>,
    pub(super) session: Arc<Session>,
    /// The GET of the client, with its credentials.
    pub(super) request: Arc<ClientRequest>,
    /// How often the session had moved.
    pub(super) generation: u32,
    /// Whether it was taken up a moment ago.
    pub(super) is_repeated: bool,
    /// The id of the last event of the release, if there was one since the client's GET.
    pub(super) last_event_id: Option<HeaderValue>,
}

/// What one attempt leads to.
enum Attempt {
    Opened(ReleaseBody, Arc<Backend>),
    TryAgain,
    GiveUp,
}

impl BrokenStream {
    /// Opens the stream again, at the release of the session. `None` when the client has to do it. A
    /// session that the release has lost is opened again; that continues the stream by itself.
    pub(super) async fn take_up(self) -> Option<(ReleaseBody, Arc<Backend>)> {
        let until = monotonic() + HOLD_MAX;
        let mut delay = if self.is_repeated { RETRY_DELAY_MAX } else { RETRY_DELAY };
        while monotonic() < until && !self.session.is_removed() {
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
            match self.attempt().await {
                Attempt::Opened(body, backend) => return Some((body, backend)),
                Attempt::TryAgain => (),
                Attempt::GiveUp => return None,
            }
        }
        None
    }

    async fn attempt(&self) -> Attempt {
        let router = &self.state.router;
        let mut view = router.view.load();
        let route = router.route(&mut view, &self.request, ClientMessageKind::Listen).await;
        let route = match route {
            // The session has moved: a command says where the stream continues.
            Ok(route) if route.generation != self.generation => return Attempt::TryAgain,
            Ok(route) => route,
            Err(RouteError::NoRelease | RouteError::NotMigrated) => return Attempt::TryAgain,
            Err(_) => return Attempt::GiveUp,
        };
        let mut head = head_for_release(&view, &route, &self.request);
        if let Some(id) = &self.last_event_id {
            head.headers.insert(LAST_EVENT_ID, id.clone());
        }
        let sending = route.backend.send(Request::from_parts(head, BackendBody::default()));
        let Ok(Ok(response)) = tokio::time::timeout(OPEN_TIMEOUT, sending).await else {
            return Attempt::TryAgain;
        };
        let response = decoded(response);
        let status = response.status();
        if status.is_success() && is_readable_stream(response.headers()) {
            return Attempt::Opened(response.into_body(), route.backend);
        }
        if status.is_client_error() {
            let refusal = Limited::new(response.into_body(), REFUSAL_MAX).collect().await;
            let refusal = refusal.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            if Self::is_lost(status, &refusal) {
                router.mark_session_lost(&self.session, self.generation);
            } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                // Only the client can get other credentials.
                return Attempt::GiveUp;
            }
        }
        Attempt::TryAgain
    }

    fn is_lost(status: StatusCode, refusal: &Bytes) -> bool {
        // The release served this stream before: it is not the path that it does not find.
        let is_not_found = status == StatusCode::NOT_FOUND;
        let status = status.as_u16();
        is_not_found
            || session_lost(&Answered {
                method: &Method::GET,
                in_session: true,
                status,
                content: &ResponseContent::of(refusal),
            })
    }
}
