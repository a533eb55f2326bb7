//! One request, from the client's head to the head of its answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use http::{Method, Request, Response, StatusCode, header, request};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Service;
use crate::model::Class;

use super::answer::Answer;
use super::download::{Download, Reader};
use super::exchange::{Exchange, Kind};
use super::held::{Held, Retry};
use super::listening::Listening;
use super::lost::refused;
use super::notice::Cause;
use super::passage::Routed;
use super::repeat::Repeat;
use super::reply::{Later, Left, fail, pass, passing, until_left};
use super::routes::Routes;
use super::session::{Fate, Sessions, What};
use super::sse::Events;
use super::states::States;
use super::upload::{Asked, Upload};
use super::{answer, classify, gate, headers, hint, passage};

/// What every request meets first.
#[derive(Debug)]
pub(super) struct Front {
    /// What the operator allows.
    pub service: ArcSwap<Service>,
    /// Which release gets what.
    pub routes: ArcSwap<Routes>,
    /// The live legacy sessions.
    pub sessions: Sessions,
    /// Which release sealed which state.
    pub states: Arc<States>,
    /// The release on trial; 0 where there is none.
    pub trial: AtomicU32,
    /// The release whose sessions move on, though it is not left; 0 where there is none.
    pub yields: AtomicU32,
    /// Tells when sessions were seen.
    pub clock: Clock,
    /// Fires when nobody is served any more.
    pub stop: CancellationToken,
}

impl Front {
    /// Answers one request. Whatever happens, there is an answer.
    pub(super) async fn serve(
        self: &Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
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
        self: &Arc<Self>,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let upload = match Upload::read(body, service.limits.body).await {
            Ok(upload) => upload,
            Err(flaw) => return answer::plain(flaw.status(), flaw.text()),
        };
        if let Some(response) = self.mirrored(&head.headers, &upload) {
            return response;
        }
        self.carry(peer, head, upload).await
    }

    /// Brings a POST where it belongs, and once more where the first release was left and that
    /// changes nothing.
    pub(super) async fn carry(
        self: &Arc<Self>,
        peer: IpAddr,
        head: request::Parts,
        upload: Upload,
    ) -> Response<Answer> {
        let again = upload.whole().cloned();
        let left = match self.attempt(peer, head.clone(), upload).await {
            Ok(response) => return response,
            Err(left) => left,
        };
        let Some(body) = again.filter(|_| left.fate() == Fate::Replay) else {
            return fail(left.exchange, left.cause).await;
        };
        let mut exchange = left.exchange;
        match left.cause {
            Cause::Rollback => exchange.replay(),
            _ => exchange.end(Class::ServerFault),
        }
        drop(exchange);
        match self.attempt(peer, head, Upload::of(body)).await {
            Ok(response) => response,
            Err(left) => fail(left.exchange, left.cause).await,
        }
    }

    /// Sends a POST to the release where it belongs. An error when that is left meanwhile.
    async fn attempt(
        self: &Arc<Self>,
        peer: IpAddr,
        mut head: request::Parts,
        upload: Upload,
    ) -> Result<Response<Answer>, Left> {
        let asked = upload.asked();
        let (what, listen, hints, state) = {
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let first = asked.messages.first();
            let method = first.and_then(|it| it.method.as_deref()).unwrap_or_default();
            let state = first.and_then(|it| it.state);
            let (listen, hints) = (method == "subscriptions/listen", hint::may_hint(method));
            (passage::what(&asked), listen, hints, state)
        };
        let found = match self.sealed(&head, state) {
            Some(found) => found,
            None => self.route(&head, what, peer).await,
        };
        let routed = match found {
            Ok(routed) => routed,
            Err(unrouted) => {
                upload.finish().await;
                let (ids, batch) = asked.lock().unwrap_or_else(PoisonError::into_inner).ids();
                let ids: Vec<_> = ids.iter().map(AsRef::as_ref).collect();
                return Ok(unrouted.answer(&ids, batch));
            }
        };
        let mut routed = routed;
        let upload = self.learn(&routed, what, &mut head, upload);
        let kind = if listen { Kind::Listen } else { Kind::Call };
        let mut exchange = self.exchange(&mut routed, kind, asked);
        exchange.note_cancelled();
        exchange.clamp = hints
            && headers::is_modern(&head.headers)
            && self.trial.load(Ordering::Relaxed) == routed.upstream.number.0;
        if passage::is_opening(&upload) {
            exchange.opening = upload.whole().cloned();
        }
        let client_session = head.headers.get(headers::SESSION).cloned();
        let later = Later {
            retry: Retry::new(self, peer, &head, &upload, &exchange),
            listening: Listening::new(self, peer, &head, &upload, &exchange),
        };
        self.address(&mut head, &routed, peer);
        exchange.repeat = Repeat::of(&routed.upstream, &head, &upload);
        exchange.upload = Some(upload.clone());
        let sending = routed.upstream.client.request(Request::from_parts(head, upload));
        match until_left(&mut exchange, sending).await {
            Some(Ok(response)) if !response.status().is_informational() => {
                let (head, body) = response.into_parts();
                let head = self.rename(head, &routed, client_session, &mut exchange);
                pass(self, head, body, exchange, later).await
            }
            Some(Err(error)) if error.is_connect() && exchange.upstream.left.is_cancelled() => {
                Err(Left { exchange, sent: false, cause: Cause::Rollback })
            }
            Some(_) => Ok(fail(exchange, Cause::Upstream).await),
            None => Err(Left { exchange, sent: true, cause: Cause::Rollback }),
        }
    }

    /// What is open from now on.
    pub(super) fn exchange(&self, routed: &mut Routed, kind: Kind, asked: Asked) -> Exchange {
        let service = self.service.load();
        let (slow, deadline) = (service.limits.slow, service.limits.deadline);
        let slow = matches!(kind, Kind::Call | Kind::Listen).then_some(slow);
        let mut exchange = Exchange::new(Arc::clone(&routed.upstream), kind, asked, slow, deadline);
        exchange.session = routed.session.clone();
        exchange.generation = routed.generation;
        exchange.turn = routed.turn.take();
        exchange
    }

    /// Everything else: streams that listen, the end of a session, and paths beside the endpoint.
    async fn other(
        self: &Arc<Self>,
        service: &Service,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        let (head, body) = request.into_parts();
        let upload = match Upload::plain(body, service.limits.body) {
            Ok(upload) => upload,
            Err(flaw) => return answer::plain(flaw.status(), flaw.text()),
        };
        let endpoint = head.uri.path() == service.path;
        if !(endpoint && head.method == Method::GET) {
            let response = self.pass_on(peer, head, upload, endpoint, false).await;
            return response.unwrap_or_else(left);
        }
        // A stream that was about to open when its release was left opens at the next one; one whose
        // session the release does not know, once that is opened anew.
        match self.pass_on(peer, head.clone(), upload, endpoint, true).await {
            Some(response) => response,
            None => {
                let again = self.pass_on(peer, head, Upload::default(), endpoint, false).await;
                again.unwrap_or_else(left)
            }
        }
    }

    /// `None` when the release is left before its answer; with `reopen`, also when it does not know
    /// the session and that can be opened anew.
    async fn pass_on(
        self: &Arc<Self>,
        peer: IpAddr,
        mut head: request::Parts,
        upload: Upload,
        endpoint: bool,
        reopen: bool,
    ) -> Option<Response<Answer>> {
        let kind = if endpoint && head.method == Method::GET { Kind::Stream } else { Kind::Plain };
        let what = match kind {
            Kind::Stream => What::Listen,
            _ if endpoint && head.method == Method::DELETE => What::End,
            _ => What::Notification,
        };
        let mut routed = match self.route(&head, what, peer).await {
            Ok(routed) => routed,
            Err(unrouted) => {
                self.end(&head, what);
                return Some(unrouted.answer(&[], false));
            }
        };
        let mut exchange = self.exchange(&mut routed, kind, upload.asked());
        let client_session = head.headers.get(headers::SESSION).cloned();
        let sent = head.clone();
        self.address(&mut head, &routed, peer);
        let sending = routed.upstream.client.request(Request::from_parts(head, upload));
        let (head, mut body) = match until_left(&mut exchange, sending).await? {
            Ok(response) if !response.status().is_informational() => response.into_parts(),
            _ => return Some(fail(exchange, Cause::Upstream).await),
        };
        let mut ready = VecDeque::new();
        if reopen && exchange.session.is_some() && head.status.is_client_error() {
            let (said, lost) = refused(&mut exchange, head.status, &mut body).await?;
            if lost && self.forgot(&exchange) {
                return None;
            }
            ready = said;
        }
        // A server may refuse to end a session, and then goes on with it.
        if head.status.is_success() {
            self.end(&sent, what);
        }
        // Servers without a stream of their own say 405 to each client that asks, and some that go
        // by their router 404; that is no fault.
        let none = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND].contains(&head.status);
        let neutral = kind == Kind::Stream && none;
        exchange.plain(if neutral { Class::Neutral } else { classify::status(head.status) });
        let mut head = self.rename(head, &routed, client_session, &mut exchange);
        let readable = headers::is_events(&head.headers) && !headers::is_encoded(&head.headers);
        if kind != Kind::Stream || !readable {
            return Some(passing(head, ready, body, Reader::Nothing, exchange));
        }
        head.headers.remove(header::CONTENT_LENGTH);
        let held = Held::new(self, &exchange);
        let status = head.status;
        let reader = Reader::Events(Events::new());
        let download = Download::new(VecDeque::new(), body, reader, status, exchange).held(held);
        Some(Response::from_parts(head, Answer::Passing(Box::new(download))))
    }

    /// The client ended its session.
    fn end(&self, head: &request::Parts, what: What) {
        let id = head.headers.get(headers::SESSION).filter(|_| what == What::End);
        let id = id.and_then(|id| id.to_str().ok());
        if let Some(claim) = id.and_then(|id| self.sessions.read(id)) {
            self.sessions.end(&claim);
        }
    }
}

fn left() -> Response<Answer> {
    answer::plain(StatusCode::BAD_GATEWAY, "the release was left")
}
