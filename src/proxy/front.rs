//! One request, from the client's head to the head of its answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::clock::Clock;
use crate::config::Service;
use crate::model::Class;

use super::answer;
use super::download::{Answer, Download, Reader};
use super::exchange::{Exchange, Kind};
use super::message::Message;
use super::notice::Cause;
use super::repeat::Repeat;
use super::routes::Routes;
use super::scan::Scan;
use super::session::{Claim, Session, Sessions};
use super::sse::Events;
use super::upload::{Flaw, Upload};
use super::upstream::Upstream;
use super::{classify, gate, headers};

/// A JSON answer up to this size is read before its head is passed on, so that a release that
/// fails or is left in the middle still leads to an answer for the client's id.
const ANSWER_AHEAD_MAX: usize = 64 * 1024;

/// What every request meets first.
#[derive(Debug)]
pub(super) struct Front {
    /// What the operator allows.
    pub service: ArcSwap<Service>,
    /// Which release gets what.
    pub routes: ArcSwap<Routes>,
    /// The live legacy sessions.
    pub sessions: Sessions,
    /// Tells when sessions were seen.
    pub clock: Clock,
}

/// A request that found its release.
struct Routed {
    upstream: Arc<Upstream>,
    session: Option<(Claim, Option<Arc<Session>>)>,
}

impl Front {
    /// Answers one request. Whatever happens, there is an answer.
    pub(super) async fn serve(&self, peer: IpAddr, request: Request<Incoming>) -> Response<Answer> {
        let service = self.service.load();
        let checked =
            gate::check(&service.hosts, &service.origins, request.uri(), request.headers());
        if let Err(gate::Denied(status, why)) = checked {
            return answer::plain(status, why);
        }
        if request.method() == Method::CONNECT {
            return answer::plain(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here");
        }
        if request.uri().path() == service.path && request.method() == Method::POST {
            self.post(&service, peer, request).await
        } else {
            self.other(&service, peer, request).await
        }
    }

    /// JSON-RPC: requests that have to be answered for their ids.
    async fn post(
        &self,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let (mut head, body) = request.into_parts();
        let upload = match Upload::read(body, service.limits.body).await {
            Ok(upload) => upload,
            Err(flaw) => return answer::plain(flaw.status(), flaw.text()),
        };
        let asked = upload.asked();
        let listen = {
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let method = asked.messages.first().and_then(|message| message.method.as_deref());
            method == Some("subscriptions/listen")
        };
        let kind = if listen { Kind::Listen } else { Kind::Call };
        let routed = match self.route(&head) {
            Ok(routed) => routed,
            Err(unrouted) => {
                upload.finish().await;
                let (ids, batch) = asked.lock().unwrap_or_else(PoisonError::into_inner).ids();
                let ids: Vec<_> = ids.iter().map(AsRef::as_ref).collect();
                return match unrouted {
                    Unrouted::SessionOver => answer::session_over(ids.first().copied()),
                    Unrouted::NoRelease => answer::errors(&ids, batch, Cause::NoRelease),
                };
            }
        };
        let limits = &service.limits;
        let upstream = Arc::clone(&routed.upstream);
        let mut exchange = Exchange::new(upstream, kind, asked, limits.slow, limits.deadline);
        exchange.session = routed.session.as_ref().and_then(|(_, session)| session.clone());
        exchange.note_cancelled();
        let client_session = head.headers.get(headers::SESSION).cloned();
        self.address(&mut head, &routed, peer);
        exchange.repeat = Repeat::of(&routed.upstream, &head, &upload);
        exchange.upload = Some(upload.clone());
        let sending = routed.upstream.client.request(Request::from_parts(head, upload));
        match until_left(&mut exchange, sending).await {
            Some(Ok(response)) if !response.status().is_informational() => {
                let (head, body) = response.into_parts();
                let head = self.rename(head, &routed, client_session, &mut exchange);
                pass(head, body, exchange).await
            }
            Some(_) => fail(exchange, Cause::Upstream).await,
            None => fail(exchange, Cause::Rollback).await,
        }
    }

    /// Everything else: streams that listen, the end of a session, and paths beside the endpoint.
    async fn other(
        &self,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let (mut head, body) = request.into_parts();
        let endpoint = head.uri.path() == service.path;
        let kind = if endpoint && head.method == Method::GET { Kind::Stream } else { Kind::Plain };
        let routed = match self.route(&head) {
            Ok(routed) => routed,
            Err(Unrouted::SessionOver) => return answer::session_over(None),
            Err(Unrouted::NoRelease) => return answer::errors(&[], false, Cause::NoRelease),
        };
        let limits = &service.limits;
        let upstream = Arc::clone(&routed.upstream);
        let upload = match Upload::plain(body, limits.body) {
            Ok(upload) => upload,
            Err(flaw) => return answer::plain(flaw.status(), flaw.text()),
        };
        let asked = upload.asked();
        let mut exchange = Exchange::new(upstream, kind, asked, None, limits.deadline);
        exchange.session = routed.session.as_ref().and_then(|(_, session)| session.clone());
        let client_session = head.headers.get(headers::SESSION).cloned();
        let ends_session = endpoint && head.method == Method::DELETE;
        self.address(&mut head, &routed, peer);
        let sending = routed.upstream.client.request(Request::from_parts(head, upload));
        let (head, body) = match until_left(&mut exchange, sending).await {
            Some(Ok(response)) if !response.status().is_informational() => response.into_parts(),
            Some(_) => return fail(exchange, Cause::Upstream).await,
            None => return answer::plain(StatusCode::BAD_GATEWAY, "the release was left"),
        };
        if let Some((claim, _)) = routed.session.as_ref().filter(|_| ends_session) {
            self.sessions.end(claim);
        }
        // Servers without a stream of their own say 405 to each client that asks; that is no fault.
        let neutral = kind == Kind::Stream && head.status == StatusCode::METHOD_NOT_ALLOWED;
        exchange.plain(if neutral { Class::Neutral } else { classify::status(head.status) });
        let mut head = self.rename(head, &routed, client_session, &mut exchange);
        let readable = headers::is_events(&head.headers) && !headers::is_encoded(&head.headers);
        let reader = if kind == Kind::Stream && readable {
            head.headers.remove(header::CONTENT_LENGTH);
            Reader::Events(Events::new())
        } else {
            Reader::Nothing
        };
        passing(head, VecDeque::new(), body, reader, exchange)
    }

    /// Finds the release: the session's own, or the active one.
    fn route(&self, head: &http::request::Parts) -> Result<Routed, Unrouted> {
        let routes = self.routes.load();
        let id = head.headers.get(headers::SESSION).filter(|_| !headers::is_modern(&head.headers));
        let Some(id) = id else {
            let upstream = Arc::clone(routes.active().ok_or(Unrouted::NoRelease)?);
            return Ok(Routed { upstream, session: None });
        };
        let claim = id.to_str().ok().and_then(|id| self.sessions.read(id));
        let claim = claim.ok_or(Unrouted::SessionOver)?;
        let upstream = Arc::clone(routes.find(claim.release).ok_or(Unrouted::SessionOver)?);
        let session = self.sessions.touch(&claim, self.clock.now());
        if let (Some(session), Some(protocol)) = (&session, head.headers.get(headers::PROTOCOL)) {
            session.speaks(protocol.to_str().unwrap_or_default());
        }
        Ok(Routed { upstream, session: Some((claim, session)) })
    }

    /// Makes a client's head one for the release.
    fn address(&self, head: &mut http::request::Parts, routed: &Routed, peer: IpAddr) {
        let named = head.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
        // The name that was checked: that of the target where there is one.
        let host = named.or_else(|| head.headers.get(header::HOST).cloned());
        if head.uri.path() == self.service.load().path {
            // What the release compresses can not be read on its way, nor be added to.
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        headers::strip(&mut head.headers);
        headers::forward(&mut head.headers, peer, host);
        let authority = &routed.upstream.authority;
        let path = head.uri.path_and_query().cloned();
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Authority::try_from(authority.as_str()).ok();
        uri.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head.version = Version::HTTP_11;
        if let Ok(host) = HeaderValue::from_str(authority) {
            head.headers.insert(header::HOST, host);
        }
        let id = routed.session.as_ref().map(|(claim, _)| claim.backend_id.as_str());
        match id.and_then(|id| HeaderValue::from_str(id).ok()) {
            Some(id) => head.headers.insert(headers::SESSION, id),
            None => head.headers.remove(headers::SESSION),
        };
    }

    /// Makes a release's head one for the client: its session goes by the proxy's id.
    fn rename(
        &self,
        mut head: response::Parts,
        routed: &Routed,
        client_session: Option<HeaderValue>,
        exchange: &mut Exchange,
    ) -> response::Parts {
        headers::strip(&mut head.headers);
        // Not the release's version: the client was promised nothing less than 1.1.
        head.version = Version::HTTP_11;
        let backend_id = head.headers.remove(headers::SESSION);
        let Some(backend_id) = backend_id.as_ref().and_then(|id| id.to_str().ok()) else {
            return head;
        };
        let known =
            routed.session.as_ref().is_some_and(|(claim, _)| claim.backend_id == backend_id);
        let id = if known {
            client_session
        } else {
            let minted = self.sessions.mint(routed.upstream.number, backend_id);
            minted.and_then(|(id, claim)| {
                exchange.session = self.sessions.touch(&claim, self.clock.now());
                HeaderValue::from_str(&id).ok()
            })
        };
        if let Some(id) = id {
            head.headers.insert(headers::SESSION, id);
        }
        head
    }
}

/// Why a request has no release to go to.
enum Unrouted {
    SessionOver,
    NoRelease,
}

/// Waits for `work`; `None` when the release is left first. Requests become overdue meanwhile.
async fn until_left<T>(exchange: &mut Exchange, work: impl Future<Output = T>) -> Option<T> {
    let cut = exchange.upstream.cut.clone();
    let mut work = std::pin::pin!(work);
    let mut left = std::pin::pin!(cut.cancelled());
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(done) = work.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(done));
        }
        exchange.poll_alarm(cx);
        left.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Passes the answer to a POST on, as it comes.
async fn pass(
    mut head: response::Parts,
    body: Incoming,
    mut exchange: Exchange,
) -> Response<Answer> {
    if headers::is_encoded(&head.headers) {
        return passing(head, VecDeque::new(), body, Reader::Nothing, exchange);
    }
    if headers::is_events(&head.headers) {
        // The proxy may have to add to them.
        head.headers.remove(header::CONTENT_LENGTH);
        return passing(head, VecDeque::new(), body, Reader::Events(Events::new()), exchange);
    }
    let (mut scan, mut ready, mut size) = (Scan::default(), VecDeque::new(), 0);
    // They count when they are on their way: until then the answer may still be one of ours.
    let mut answers = Vec::new();
    let mut body = body;
    // A stream that listens is not waited for: servers were seen to send it without events.
    let ahead = if exchange.kind() == Kind::Listen { 0 } else { ANSWER_AHEAD_MAX };
    while size < ahead {
        match until_left(&mut exchange, body.frame()).await {
            None => return fail(exchange, Cause::Rollback).await,
            Some(None) => return whole(head, ready, &answers, exchange).await,
            Some(Some(Err(_))) => return fail(exchange, Cause::Upstream).await,
            Some(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                size += data.len();
                scan.feed(&data, |message| {
                    if message.is_answer() {
                        answers.push(message);
                    }
                });
                ready.push_back(data);
            }
        }
    }
    answers.iter().for_each(|message| exchange.heard(head.status, message));
    passing(head, ready, body, Reader::Json(scan), exchange)
}

/// An answer that was read to its end.
async fn whole(
    head: response::Parts,
    ready: VecDeque<Bytes>,
    answers: &[Message],
    mut exchange: Exchange,
) -> Response<Answer> {
    answers.iter().for_each(|message| exchange.heard(head.status, message));
    let unanswered = !exchange.open_ids().is_empty();
    if unanswered && head.status.is_success() {
        return fail(exchange, Cause::Upstream).await;
    }
    // Not for its id, but the status tells enough: an unknown session, a wrong method.
    let lost = head.status == StatusCode::NOT_FOUND
        && exchange.session.as_ref().is_some_and(|session| session.is_proven());
    exchange.end(if lost { Class::ServerFault } else { classify::status(head.status) });
    let mut head = head;
    head.headers.remove(header::CONTENT_LENGTH);
    let body: Bytes = match ready.len() {
        0 | 1 => ready.into_iter().next().unwrap_or_default(),
        _ => ready.into_iter().flatten().collect(),
    };
    Response::from_parts(head, Answer::Full(Full::new(body)))
}

fn passing(
    head: response::Parts,
    ready: VecDeque<Bytes>,
    body: Incoming,
    reader: Reader,
    mut exchange: Exchange,
) -> Response<Answer> {
    exchange.upload = None;
    let status = head.status;
    let download = Download::new(ready, body, reader, status, exchange);
    Response::from_parts(head, Answer::Passing(Box::new(download)))
}

/// An answer of ours for every id that waits.
async fn fail(mut exchange: Exchange, cause: Cause) -> Response<Answer> {
    if let Some(flaw) = exchange.flaw().filter(|_| cause == Cause::Upstream) {
        let class = if flaw == Flaw::TooLarge { Class::ClientFault } else { Class::Neutral };
        exchange.end(class);
        return answer::plain(flaw.status(), flaw.text());
    }
    let whole = match exchange.upload.take() {
        Some(upload) => upload.finish().await,
        None => true,
    };
    let (ids, batch) = exchange.all_ids();
    // What is not known to be a notification can not be taken for one.
    let cause_told = if whole || !ids.is_empty() { cause } else { Cause::Upstream };
    let refs: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
    let response = answer::errors(&refs, batch, cause_told);
    match cause {
        Cause::Rollback => {
            ids.iter().for_each(|_| exchange.upstream.answered());
            exchange.end(Class::Neutral);
        }
        Cause::Upstream | Cause::NoRelease => {
            if ids.is_empty() {
                exchange.plain(Class::ServerFault);
            }
            exchange.end(Class::ServerFault);
        }
    }
    response
}
