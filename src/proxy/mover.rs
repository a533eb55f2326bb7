//! Moves a session: opens it anew at another release, as the client opened it, with the credentials
//! of the request that asks for it. They are used once and never kept.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use crate::model::{Number, Refusal};

use super::answer::Answer;
use super::blocks::{self, Block, Blocks};
use super::front::Front;
use super::headers;
use super::passage::Routed;
use super::session::{Captured, Onward, Session};
use super::upload::Upload;
use super::upstream::Upstream;

/// Longest answer of a release to what a move asks.
const ANSWER_MAX: usize = 256 * 1024;
/// How long the end of the session at the release that it left may take.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a session stays, and what the release said to it.
pub(super) type Stays = (Refusal, Option<Box<Response<Answer>>>);

impl Front {
    /// Moves a session, and tells it how that went. It comes to its end also when the client that
    /// waits for it leaves.
    pub(super) async fn move_session(
        self: &Arc<Self>,
        session: &Arc<Session>,
        to: Number,
        head: &request::Parts,
        peer: IpAddr,
    ) -> Result<(), Stays> {
        let (front, session, head) = (Arc::clone(self), Arc::clone(session), head.clone());
        let moving = tokio::spawn(async move { front.transfer(&session, to, head, peer).await });
        moving.await.unwrap_or(Err((Refusal::TargetFailed, None)))
    }

    async fn transfer(
        &self,
        session: &Arc<Session>,
        to: Number,
        head: request::Parts,
        peer: IpAddr,
    ) -> Result<(), Stays> {
        let (routes, from) = (self.routes.load_full(), session.release());
        // One that forgot it has nothing to take leave of.
        let lost = session.live(|life| life.is_lost());
        let old = routes.known(from).filter(|_| !lost).cloned();
        let old_id = session.backend_id();
        let patience = self.service.load().limits.session_move;
        let opened = async {
            let target = routes.find(to).ok_or((Refusal::TargetFailed, None))?;
            let captured = session.captured().ok_or((Refusal::Unknown, None))?;
            let id = format!("rollbackd-move-{}", session.generation().wrapping_add(1));
            let routed = Routed::new(Arc::clone(target), None);
            let id = open(self, &captured, &id, &routed, head.clone(), peer).await?;
            Ok((routed, id))
        };
        let opened = tokio::time::timeout(patience, opened).await;
        let (routed, backend_id) = match opened.unwrap_or(Err((Refusal::TargetFailed, None))) {
            Ok(opened) => opened,
            Err((refusal, response)) => {
                session.refused(refusal, self.reaches(session));
                let (service, word) = (&self.service.load().name, refusal.word());
                tracing::info!(service, from = from.0, to = to.0, "a session stays: {word}");
                return Err((refusal, response));
            }
        };
        session.moved(&backend_id);
        self.sessions.note(session);
        let lead = |routed: &Routed| self.lead(head.clone(), routed, peer);
        let target = Routed { backend_id, generation: session.generation(), ..routed };
        if let Some(stream) = session.stream() {
            let (upstream, generation) = (Arc::clone(&target.upstream), target.generation);
            let mut head = lead(&target);
            head.method = Method::GET;
            head.headers.insert(header::ACCEPT, EVENTS);
            // A stream that takes nothing is of a client that is gone.
            let _ = stream.try_send(Onward { upstream, head, generation });
        }
        if let Some(old) = old {
            old.moved();
            let mut head = lead(&Routed { backend_id: old_id, ..Routed::new(old.clone(), None) });
            head.method = Method::DELETE;
            tokio::spawn(farewell(old, head));
        }
        Ok(())
    }

    /// A head of ours, with the credentials of the client's.
    fn lead(&self, mut head: request::Parts, routed: &Routed, peer: IpAddr) -> request::Parts {
        self.address(&mut head, routed, peer);
        let foreign = ["mcp-method", "mcp-name", "last-event-id", "traceparent", "tracestate"];
        foreign.into_iter().for_each(|name| _ = head.headers.remove(name));
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE] {
            head.headers.remove(name);
        }
        head.extensions = http::Extensions::new();
        head
    }
}

/// Opens the session at its new release; its id there, empty if that has none.
async fn open(
    front: &Front,
    captured: &Captured,
    id: &str,
    routed: &Routed,
    head: request::Parts,
    peer: IpAddr,
) -> Result<Box<str>, Stays> {
    let mut lead = front.lead(head, routed, peer);
    lead.method = Method::POST;
    lead.headers.insert(header::ACCEPT, BOTH);
    lead.headers.insert(header::CONTENT_TYPE, JSON);
    let protocol = lead.headers.remove(headers::PROTOCOL);
    let target = &routed.upstream;
    let (head, answer) = ask(target, &lead, captured.initialize(id), Some(id)).await?;
    let answer = answer.ok_or((Refusal::TargetFailed, None))?;
    let result = answer.get("result").ok_or((Refusal::TargetFailed, None))?;
    let backend_id = head.headers.get(headers::SESSION);
    if let Some(id) = backend_id {
        lead.headers.insert(headers::SESSION, id.clone());
    }
    if let Some(protocol) = protocol {
        lead.headers.insert(headers::PROTOCOL, protocol);
    }
    if let Err(refusal) = captured.fits(result) {
        lead.method = Method::DELETE;
        tokio::spawn(farewell(Arc::clone(target), lead));
        return Err((refusal, None));
    }
    for text in captured.rest(id) {
        let asked: Option<String> = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|it| Some(it.get("id")?.as_str()?.to_owned()));
        let said = ask(target, &lead, text, asked.as_deref()).await;
        // Without a level or a subscription the session lives; without this it does not.
        if asked.is_none() {
            said?;
        }
    }
    Ok(backend_id.and_then(|id| id.to_str().ok()).unwrap_or_default().into())
}

/// Asks a release something of ours; the head of its answer, and the message for `id`.
async fn ask(
    target: &Upstream,
    lead: &request::Parts,
    body: String,
    id: Option<&str>,
) -> Result<(response::Parts, Option<Value>), Stays> {
    let request = Request::from_parts(lead.clone(), Upload::of(body.into()));
    let response = target.client.request(request).await;
    let (head, body) = response.map_err(|_| (Refusal::TargetFailed, None))?.into_parts();
    match head.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err((Refusal::Credentials, Some(Box::new(denied(head, body).await))));
        }
        status if !status.is_success() => return Err((Refusal::TargetFailed, None)),
        _ => (),
    }
    let Some(id) = id else { return Ok((head, None)) };
    let answer = find(&head, body, id).await;
    Ok((head, answer))
}

/// Reads until the message for `id` has come.
async fn find(head: &response::Parts, mut body: Incoming, id: &str) -> Option<Value> {
    let ours = |message: &Value| message.get("id").and_then(Value::as_str) == Some(id);
    let (mut text, mut blocks, mut size) = (Vec::new(), Blocks::default(), 0);
    let events = headers::is_events(&head.headers);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        size += data.len();
        if size > ANSWER_MAX {
            return None;
        }
        if !events {
            text.extend_from_slice(&data);
            continue;
        }
        let mut found = None;
        blocks.feed(&data, |block| {
            if let Block::Whole(block) = block
                && let Some(message) = blocks::message(&block).filter(|it| ours(it))
            {
                found = Some(message);
            }
        });
        if found.is_some() {
            return found;
        }
    }
    serde_json::from_slice(&text).ok().filter(|message| ours(message))
}

/// What the release says to credentials that it does not take, for the client.
async fn denied(mut head: response::Parts, body: Incoming) -> Response<Answer> {
    let body = http_body_util::Limited::new(body, ANSWER_MAX).collect().await;
    let body: Bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    headers::strip(&mut head.headers);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(headers::SESSION);
    Response::from_parts(head, Answer::Full(Full::new(body)))
}

/// Ends the session at the release that it left. Nobody waits for it, and it may fail.
async fn farewell(upstream: Arc<Upstream>, head: request::Parts) {
    if head.headers.contains_key(headers::SESSION) {
        let request = Request::from_parts(head, Upload::default());
        let _ = tokio::time::timeout(FAREWELL_MAX, upstream.client.request(request)).await;
    }
}
