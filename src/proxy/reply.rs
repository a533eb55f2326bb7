//! From the head of a release's answer to a POST, to the answer that the client gets.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, header, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::model::Class;

use super::answer::Answer;
use super::download::{Download, Reader};
use super::exchange::{Exchange, Kind};
use super::front::Front;
use super::held::Retry;
use super::listening::Listening;
use super::message::Message;
use super::notice::Cause;
use super::scan::Scan;
use super::session::{Fate, fate};
use super::sse::Events;
use super::upload::Flaw;
use super::{answer, classify, headers, hint, rewrite};

/// A JSON answer up to this size is read before its head is passed on, so that a release that
/// fails or is left in the middle still leads to an answer for the client's id.
pub(super) const ANSWER_AHEAD_MAX: usize = 64 * 1024;

/// How a stream goes on when its release is left in the middle.
pub(super) struct Later {
    /// A request is asked again.
    pub retry: Option<Retry>,
    /// It listens at the next release.
    pub listening: Option<Box<Listening>>,
}

/// A POST whose release was left before the client saw anything of an answer.
pub(super) struct Left {
    /// What was asked.
    pub exchange: Exchange,
    /// Whether the release may have done it.
    pub sent: bool,
    /// What happened.
    pub cause: Cause,
}

impl Left {
    /// What becomes of it.
    pub(super) fn fate(&self) -> Fate {
        fate(self.sent, self.exchange.is_safe(), false)
    }
}

/// Waits for `work`; `None` when the release is left first. Requests become overdue meanwhile.
pub(super) async fn until_left<T>(
    exchange: &mut Exchange,
    work: impl Future<Output = T>,
) -> Option<T> {
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
pub(super) async fn pass(
    front: &Arc<Front>,
    mut head: response::Parts,
    body: Incoming,
    mut exchange: Exchange,
    later: Later,
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
        let download = download.told(front).repeatable(later);
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
            None => return Err(Left { exchange, sent: true, cause: Cause::Rollback }),
            Some(None) => {
                let body = joined(ready);
                exchange.lost = exchange.is_lost(&Method::POST, head.status, &body);
                if exchange.lost && front.forgot(&exchange) {
                    // The release refused to do it.
                    return Err(Left { exchange, sent: false, cause: Cause::Upstream });
                }
                return Ok(whole(front, head, body, &answers, exchange).await);
            }
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
    body: Bytes,
    answers: &[Message],
    mut exchange: Exchange,
) -> Response<Answer> {
    answers.iter().for_each(|message| exchange.heard(head.status, message));
    let unanswered = !exchange.open_ids().is_empty();
    if unanswered && head.status.is_success() {
        return fail(exchange, Cause::Upstream).await;
    }
    // Not for its id, but the status tells enough: an unknown session, a wrong method.
    let lost = exchange.lost_a_live_one();
    exchange.end(if lost { Class::ServerFault } else { classify::status(head.status) });
    let mut head = head;
    head.headers.remove(header::CONTENT_LENGTH);
    let body = match exchange.opening.take().and_then(|opening| {
        let (body, result) = rewrite::opened(&body).filter(|_| exchange.session.is_some())?;
        front.opened(&exchange, &opening, &result);
        Some(body)
    }) {
        Some(body) => body,
        None if exchange.clamp => hint::clamped(&body).map_or(body, Bytes::from),
        None => body,
    };
    Response::from_parts(head, Answer::Full(Full::new(body)))
}

/// Pieces in one.
pub(super) fn joined(pieces: VecDeque<Bytes>) -> Bytes {
    match pieces.len() {
        0 | 1 => pieces.into_iter().next().unwrap_or_default(),
        _ => pieces.into_iter().flatten().collect(),
    }
}

pub(super) fn passing(
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
pub(super) async fn fail(mut exchange: Exchange, cause: Cause) -> Response<Answer> {
    if let Some(flaw) = exchange.flaw().filter(|_| cause == Cause::Upstream) {
        let class = match flaw {
            Flaw::TooLarge | Flaw::Mismatch => Class::ClientFault,
            Flaw::Silent | Flaw::Left => Class::Neutral,
        };
        let (ids, _) = exchange.all_ids();
        exchange.end(class);
        if flaw == Flaw::Mismatch {
            return answer::mismatch(ids.first().map(AsRef::as_ref));
        }
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
