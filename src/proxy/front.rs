//! One request, from the client's head to the head of its answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::Service;
use crate::model::Class;

use super::answer;
use super::download::{Answer, Download, Reader};
use super::exchange::{Exchange, Kind};
use super::held::{Held, Retry};
use super::message::Message;
use super::notice::Cause;
use super::passage::Routed;
use super::routes::Routes;
use super::scan::Scan;
use super::session::{Fate, Sessions, What, fate};
use super::sse::Events;
use super::upload::{Asked, Flaw, Upload};
use super::{classify, gate, headers, passage, rewrite};

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
            return fail(left.exchange, Cause::Rollback).await;
        };
        let mut exchange = left.exchange;
        exchange.replay();
        drop(exchange);
        match self.attempt(peer, head, Upload::of(body)).await {
            Ok(response) => response,
            Err(left) => fail(left.exchange, Cause::Rollback).await,
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
        let (what, listen) = {
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let method = asked.messages.first().and_then(|message| message.method.as_deref());
            (passage::what(&asked), method == Some("subscriptions/listen"))
        };
        let routed = match self.route(&head, what, peer).await {
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
        if passage::is_opening(&upload) {
            exchange.opening = upload.whole().cloned();
        }
        let client_session = head.headers.get(headers::SESSION).cloned();
        let retry = Retry::new(self, peer, &head, &upload, &exchange);
        self.address(&mut head, &routed, peer);
        exchange.upload = Some(upload.clone());
        let sending = routed.upstream.client.request(Request::from_parts(head, upload));
        match until_left(&mut exchange, sending).await {
            Some(Ok(response)) if !response.status().is_informational() => {
                let (head, body) = response.into_parts();
                let head = self.rename(head, &routed, client_session, &mut exchange);
                pass(self, head, body, exchange, retry).await
            }
            Some(Err(error)) if error.is_connect() && exchange.upstream.left.is_cancelled() => {
                Err(Left { exchange, sent: false })
            }
            Some(_) => Ok(fail(exchange, Cause::Upstream).await),
            None => Err(Left { exchange, sent: true }),
        }
    }

    fn exchange(&self, routed: &mut Routed, kind: Kind, asked: Asked) -> Exchange {
        let service = self.service.load();
        let (slow, deadline) = (service.limits.slow, service.limits.deadline);
        let slow = slow.filter(|_| matches!(kind, Kind::Call | Kind::Listen));
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
            let response = self.pass_on(peer, head, upload, endpoint).await;
            return response.unwrap_or_else(left);
        }
        // A stream that was about to open when its release was left opens at the next one.
        match self.pass_on(peer, head.clone(), upload, endpoint).await {
            Some(response) => response,
            None => {
                let again = self.pass_on(peer, head, Upload::default(), endpoint).await;
                again.unwrap_or_else(left)
            }
        }
    }

    /// `None` when the release is left before its answer.
    async fn pass_on(
        self: &Arc<Self>,
        peer: IpAddr,
        mut head: request::Parts,
        upload: Upload,
        endpoint: bool,
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
        let (head, body) = match until_left(&mut exchange, sending).await? {
            Ok(response) if !response.status().is_informational() => response.into_parts(),
            _ => return Some(fail(exchange, Cause::Upstream).await),
        };
        self.end(&sent, what);
        // Servers without a stream of their own say 405 to each client that asks; that is no fault.
        let neutral = kind == Kind::Stream && head.status == StatusCode::METHOD_NOT_ALLOWED;
        exchange.plain(if neutral { Class::Neutral } else { classify::status(head.status) });
        let mut head = self.rename(head, &routed, client_session, &mut exchange);
        let readable = headers::is_events(&head.headers) && !headers::is_encoded(&head.headers);
        if kind != Kind::Stream || !readable {
            return Some(passing(head, VecDeque::new(), body, Reader::Nothing, exchange));
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

/// A POST whose release was left before the client saw anything of an answer.
struct Left {
    exchange: Exchange,
    /// Whether the release may have it.
    sent: bool,
}

impl Left {
    fn fate(&self) -> Fate {
        fate(self.sent, self.exchange.is_safe(), false)
    }
}

fn left() -> Response<Answer> {
    answer::plain(StatusCode::BAD_GATEWAY, "the release was left")
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

/// Passes the answer to a POST on, as it comes. An error when the release is left first.
async fn pass(
    front: &Arc<Front>,
    mut head: response::Parts,
    body: Incoming,
    mut exchange: Exchange,
    retry: Option<Retry>,
) -> Result<Response<Answer>, Left> {
    if headers::is_encoded(&head.headers) {
        return Ok(passing(head, VecDeque::new(), body, Reader::Nothing, exchange));
    }
    if headers::is_events(&head.headers) {
        // The proxy may have to add to them.
        head.headers.remove(header::CONTENT_LENGTH);
        exchange.upload = None;
        let reader = Reader::Events(Events::new());
        let download = Download::new(VecDeque::new(), body, reader, head.status, exchange);
        let download = download.told(front).repeatable(retry);
        return Ok(Response::from_parts(head, Answer::Passing(Box::new(download))));
    }
    let (mut scan, mut ready, mut size) = (Scan::default(), VecDeque::new(), 0);
    // They count when they are on their way: until then the answer may still be one of ours.
    let mut answers = Vec::new();
    let mut body = body;
    // A stream that listens is not waited for: servers were seen to send it without events.
    let ahead = if exchange.kind() == Kind::Listen { 0 } else { ANSWER_AHEAD_MAX };
    while size < ahead {
        match until_left(&mut exchange, body.frame()).await {
            None => return Err(Left { exchange, sent: true }),
            Some(None) => return Ok(whole(front, head, ready, &answers, exchange).await),
            Some(Some(Err(_))) => return Ok(fail(exchange, Cause::Upstream).await),
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
    Ok(passing(head, ready, body, Reader::Json(scan), exchange))
}

/// An answer that was read to its end.
async fn whole(
    front: &Front,
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
    let body = match exchange.opening.take().and_then(|opening| {
        let (body, result) = rewrite::opened(&body).filter(|_| exchange.session.is_some())?;
        front.opened(&exchange, &opening, &result);
        Some(body)
    }) {
        Some(body) => body,
        None => body,
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
        Cause::Upstream | Cause::NoRelease | Cause::NotMoved => {
            if ids.is_empty() {
                exchange.plain(Class::ServerFault);
            }
            exchange.end(Class::ServerFault);
        }
    }
    response
}
