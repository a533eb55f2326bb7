//! Finds the release for a request, and makes heads fit for either side.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Response, StatusCode, Uri, Version, header, request, response};
use serde_json::Value;

use crate::model::{Number, Refusal};

use super::answer::Answer;
use super::exchange::Exchange;
use super::front::Front;
use super::notice::Cause;
use super::session::{Claim, Ground, Session, Step, Turn, What};
use super::upload::{Found, Upload};
use super::upstream::Upstream;
use super::{answer, headers, rewrite};

/// A request that found its release.
#[derive(Debug)]
pub(super) struct Routed {
    /// Its release.
    pub upstream: Arc<Upstream>,
    /// The session that it belongs to, as its id says.
    pub claim: Option<Claim>,
    /// The same, unless there are too many to be remembered.
    pub session: Option<Arc<Session>>,
    /// How often that had moved.
    pub generation: u32,
    /// Its id at the release; empty where the release has none.
    pub backend_id: Box<str>,
    /// Keeps it from moving meanwhile.
    pub turn: Option<Turn>,
}

/// Why a request has no release to go to.
#[derive(Debug)]
pub(super) enum Unrouted {
    /// Its session is over.
    SessionOver,
    /// No release is in charge.
    NoRelease,
    /// Its session could not be moved in time, or at all, and nothing but that is left.
    NotMoved,
    /// It means a release that was left: it is accepted, and goes nowhere.
    Late,
    /// It ends what no release holds any more.
    Forgotten,
    /// The release that sealed its state is gone.
    StateLost,
    /// The release that took over wants other credentials.
    Denied(Box<Response<Answer>>),
}

impl Unrouted {
    /// What the client is told. `ids` are those of its requests, in an array or not.
    pub(super) fn answer(self, ids: &[&str], batch: bool) -> Response<Answer> {
        match self {
            Self::SessionOver => answer::session_over(ids.first().copied()),
            Self::NoRelease => answer::errors(ids, batch, Cause::NoRelease),
            Self::NotMoved => answer::errors(ids, batch, Cause::NotMoved),
            Self::Late => answer::plain(StatusCode::ACCEPTED, ""),
            Self::Forgotten => answer::plain(StatusCode::OK, ""),
            Self::StateLost => answer::state_lost(ids.first().copied()),
            Self::Denied(response) => *response,
        }
    }
}

/// What a POST brings.
pub(super) fn what(found: &Found) -> What {
    let messages = &found.messages;
    let requests = messages.iter().any(|it| it.method.is_some() && it.id.is_some());
    let answers: Vec<_> =
        messages.iter().filter(|it| it.is_answer()).filter_map(|it| it.id.as_deref()).collect();
    match answers.as_slice() {
        _ if requests => What::Request,
        [] => What::Notification,
        ids => What::Response(rewrite::answered(ids)),
    }
}

/// Whether a POST asks for a session.
pub(super) fn is_opening(upload: &Upload) -> bool {
    let asked = upload.asked();
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let methods = asked.messages.iter().map(|message| message.method.as_deref());
    methods.eq([Some("initialize")])
}

impl Front {
    /// Notes what a POST says about its session, and makes it one for the session's release.
    pub(super) fn learn(
        &self,
        routed: &Routed,
        what: What,
        head: &mut request::Parts,
        upload: Upload,
    ) -> Upload {
        let Some(session) = &routed.session else { return upload };
        let asked = upload.asked();
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for message in asked.messages.iter().filter(|it| it.method.is_some()) {
            let level = message.method.as_deref() == Some("logging/setLevel");
            let level = upload.whole().filter(|_| level).and_then(|body| rewrite::level(body));
            news |= session.learn(message, level.as_deref());
        }
        if news {
            self.sessions.note(session);
        }
        let answers = asked.messages.iter().filter(|it| it.is_answer());
        for id in answers.filter_map(|it| it.id.as_deref()) {
            session.live(|life| life.settle(routed.generation, &rewrite::original(id)));
        }
        let marked = matches!(what, What::Response(1..));
        drop(asked);
        match upload.whole().filter(|_| marked).and_then(|body| rewrite::answers(body)) {
            Some(body) => {
                head.headers.remove(header::CONTENT_LENGTH);
                Upload::of(body)
            }
            None => upload,
        }
    }

    /// A session was opened.
    pub(super) fn opened(&self, exchange: &Exchange, request: &[u8], result: &Value) {
        if let Some(session) = &exchange.session {
            session.capture(request, result);
            self.sessions.note(session);
        }
    }

    /// The release that sealed the state in a request, if that is known: no other can open it.
    pub(super) fn sealed(
        &self,
        head: &request::Parts,
        state: Option<u64>,
    ) -> Option<Result<Routed, Unrouted>> {
        let release = self.states.by(state.filter(|_| headers::is_modern(&head.headers))?)?;
        let routes = self.routes.load();
        let found = routes.find(release).ok_or(Unrouted::StateLost);
        Some(found.map(|upstream| Routed::new(Arc::clone(upstream), None)))
    }

    /// Finds the release: the session's own, which may have to change first, or the active one.
    pub(super) async fn route(
        self: &Arc<Self>,
        head: &request::Parts,
        what: What,
        peer: IpAddr,
    ) -> Result<Routed, Unrouted> {
        let id = head.headers.get(headers::SESSION).filter(|_| !headers::is_modern(&head.headers));
        let Some(id) = id else {
            let routes = self.routes.load();
            let upstream = Arc::clone(routes.active().ok_or(Unrouted::NoRelease)?);
            return Ok(Routed::new(upstream, None));
        };
        let claim = id.to_str().ok().and_then(|id| self.sessions.read(id));
        let claim = claim.ok_or(Unrouted::SessionOver)?;
        let Some(session) = self.sessions.touch(&claim, self.clock.now()) else {
            let routes = self.routes.load();
            let upstream = routes.find(claim.release).ok_or(Unrouted::SessionOver)?;
            let backend_id = claim.backend_id.as_str().into();
            let routed = Routed::new(Arc::clone(upstream), Some(claim));
            return Ok(Routed { backend_id, ..routed });
        };
        if let Some(protocol) = head.headers.get(headers::PROTOCOL) {
            session.speaks(protocol.to_str().unwrap_or_default());
        }
        let patience = self.service.load().limits.session_move;
        let found = self.find(&session, head, what, peer);
        let found = tokio::time::timeout(patience, found).await.unwrap_or(Err(Unrouted::NotMoved));
        if matches!(found, Err(Unrouted::SessionOver)) {
            self.sessions.end(&claim);
        }
        found.map(|routed| Routed { claim: Some(claim), ..routed })
    }

    async fn find(
        self: &Arc<Self>,
        session: &Arc<Session>,
        head: &request::Parts,
        what: What,
        peer: IpAddr,
    ) -> Result<Routed, Unrouted> {
        loop {
            let step = match session.place(what, self.ground(session.release())) {
                Ok(place) => return self.placed(session, place),
                Err(step) => step,
            };
            match step {
                Step::Move(to) => {
                    let Err((refusal, denied)) = self.move_session(session, to, head, peer).await
                    else {
                        continue;
                    };
                    if self.reaches(session) {
                        return self.placed(session, session.stay(what));
                    }
                    return Err(match denied {
                        Some(response) if refusal == Refusal::Credentials => {
                            Unrouted::Denied(response)
                        }
                        _ if refusal.is_final() => Unrouted::SessionOver,
                        _ => Unrouted::NotMoved,
                    });
                }
                Step::Wait => session.settled().await,
                Step::Drop => return Err(Unrouted::Late),
                Step::Forget => return Err(Unrouted::Forgotten),
                Step::NoRelease => return Err(Unrouted::NoRelease),
                Step::Over | Step::Send => return Err(Unrouted::SessionOver),
            }
        }
    }

    /// Whether a session can go on where it is.
    pub(super) fn reaches(&self, session: &Session) -> bool {
        let lost = session.live(|life| life.is_lost());
        !lost && self.routes.load().find(session.release()).is_some()
    }

    fn placed(
        &self,
        session: &Arc<Session>,
        place: super::session::Place,
    ) -> Result<Routed, Unrouted> {
        let routes = self.routes.load();
        // It may have been cut since; then what is sent there is answered like all that was open.
        let upstream = routes.known(place.release).ok_or(Unrouted::NotMoved)?;
        Ok(Routed {
            upstream: Arc::clone(upstream),
            claim: None,
            session: Some(Arc::clone(session)),
            generation: place.generation,
            backend_id: place.backend_id,
            turn: place.turn,
        })
    }

    /// How things stand around a session at this release.
    fn ground(&self, release: Number) -> Ground {
        let routes = self.routes.load();
        let here = routes.find(release);
        let active = routes.active().filter(|it| !it.left.is_cancelled() && !it.cut.is_cancelled());
        let elsewhere = active.is_some_and(|active| active.number != release);
        let yields = elsewhere && self.yields.load(Ordering::Relaxed) == release.0;
        Ground {
            reachable: here.is_some(),
            left: here.is_none_or(|here| here.left.is_cancelled()) || yields,
            active: active.map(|active| active.number),
            bound: self.bound(),
            resting: false,
        }
    }

    /// Why no session of this service may move, if so.
    pub(super) fn bound(&self) -> Option<Refusal> {
        use crate::config::SessionState;
        let hard = self.service.load().session_state == SessionState::Hard;
        hard.then_some(Refusal::HardState)
    }

    /// Makes a client's head one for the release.
    pub(super) fn address(&self, head: &mut request::Parts, routed: &Routed, peer: IpAddr) {
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
        let id = Some(&routed.backend_id).filter(|id| !id.is_empty());
        match id.and_then(|id| HeaderValue::from_str(id).ok()) {
            Some(id) => head.headers.insert(headers::SESSION, id),
            None => head.headers.remove(headers::SESSION),
        };
        if let Some(last) = head.headers.remove(headers::LAST_EVENT)
            && let Some(last) = rewrite::last_event(&last, routed.generation)
        {
            head.headers.insert(headers::LAST_EVENT, last);
        }
    }

    /// Makes a release's head one for the client: its session goes by the proxy's id.
    pub(super) fn rename(
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
        let known = routed.claim.is_some() && *routed.backend_id == *backend_id;
        let id = if known {
            client_session
        } else {
            let minted = self.sessions.mint(routed.upstream.number, backend_id);
            minted.and_then(|(id, claim)| {
                exchange.session = self.sessions.touch(&claim, self.clock.now());
                exchange.generation = 0;
                HeaderValue::from_str(&id).ok()
            })
        };
        if let Some(id) = id {
            head.headers.insert(headers::SESSION, id);
        }
        head
    }
}

impl Routed {
    /// To a release, without a session.
    pub(super) fn new(upstream: Arc<Upstream>, claim: Option<Claim>) -> Self {
        Self {
            upstream,
            claim,
            session: None,
            generation: 0,
            backend_id: Box::default(),
            turn: None,
        }
    }
}
