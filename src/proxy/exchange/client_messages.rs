//! What the messages of a POST mean for routing and for their session.

use bytes::Bytes;

use crate::clock::monotonic;
use crate::mcp::methods;
use crate::proxy::exchange::id_rewrite;
use crate::proxy::exchange::parsed_body::{ParsedBody, lock_parsed};
use crate::proxy::exchange::request_body::RequestBody;
use crate::proxy::routing::router::{Route, Router};
use crate::proxy::session::ClientMessageKind;

/// What routing needs to know of a POST.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostKind {
    /// What its messages are.
    pub(super) message_kind: ClientMessageKind,
    /// Whether it is `subscriptions/listen`.
    pub(super) is_subscription: bool,
    /// Whether one of its messages is an `initialize` request.
    pub(super) opens_session: bool,
    /// Whether it is one `initialize` request.
    pub(super) is_initialize: bool,
    /// Whether clients may cache the response.
    pub(super) is_cacheable: bool,
    /// The hash of its `requestState`.
    pub(super) request_state: Option<u64>,
}

impl PostKind {
    /// Classifies a body.
    pub(super) fn of(parsed: &ParsedBody) -> Self {
        let first = parsed.messages.first();
        let method = first.and_then(|it| it.method.as_deref()).unwrap_or_default();
        let opens = |method: &str| method == methods::INITIALIZE;
        let mut methods_of_all = parsed.messages.iter().filter_map(|it| it.method.as_deref());
        let opens_session = methods_of_all.any(opens);
        Self {
            message_kind: classify_messages(parsed),
            opens_session,
            is_subscription: method == methods::SUBSCRIPTIONS_LISTEN,
            is_initialize: opens_session && parsed.messages.len() == 1,
            is_cacheable: methods::is_cacheable(method),
            request_state: first.and_then(|it| it.request_state_hash),
        }
    }
}

fn classify_messages(parsed: &ParsedBody) -> ClientMessageKind {
    let messages = &parsed.messages;
    let has_requests = messages.iter().any(|it| it.method.is_some() && it.id.is_some());
    let responses: Vec<_> =
        messages.iter().filter(|it| it.is_response()).filter_map(|it| it.id.as_deref()).collect();
    match responses.as_slice() {
        _ if has_requests => ClientMessageKind::Request,
        [] => ClientMessageKind::Notification,
        ids => ClientMessageKind::Response(id_rewrite::response_generation(ids)),
    }
}

/// Updates the session by the messages of a POST. Returns the body with the ids that the release
/// knows, when it has to change.
pub(super) fn observe_messages(
    router: &Router,
    route: &Route,
    message_kind: ClientMessageKind,
    request_body: &RequestBody,
) -> Option<Bytes> {
    let session = route.session.as_ref()?;
    let parsed = request_body.parsed();
    let parsed = lock_parsed(&parsed);
    let mut changed = false;
    for message in parsed.messages.iter().filter(|it| it.method.is_some()) {
        let is_level = message.method.as_deref() == Some(methods::SET_LEVEL);
        let body = request_body.buffered().filter(|_| is_level);
        let level = body.and_then(|body| id_rewrite::logging_level(body));
        changed |= session.observe(message, level.as_deref());
    }
    if changed {
        router.sessions.mark_changed(session);
    }
    let responses = parsed.messages.iter().filter(|it| it.is_response());
    for id in responses.filter_map(|it| it.id.as_deref()) {
        let id = id_rewrite::restore_request_id(id);
        session.with_requests(|it| it.replied_at = Some(monotonic()));
        session.with_machine(|machine| machine.server_request_closed(route.generation, &id));
    }
    let has_rewritten_ids = matches!(message_kind, ClientMessageKind::Response(1..));
    let body = request_body.buffered().filter(|_| has_rewritten_ids);
    body.and_then(|body| id_rewrite::restore_response_ids(body))
}
