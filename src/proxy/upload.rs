//! A request's body on its way to a release.
//!
//! A small body is read before the request is sent, so that its id and method are known. The rest
//! of a large one streams behind, read as it passes.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::message::Message;
use super::scan::Scan;

/// A body up to this size is read before it is sent.
const AHEAD_MAX: usize = 64 * 1024;
/// How long a client may stay silent in the middle of a body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Messages of a batch whose answers are waited for.
const BATCH_MAX: usize = 128;

/// What a body was found to hold so far.
pub(super) type Asked = Arc<Mutex<Vec<Message>>>;

/// The body of a request to a release.
#[derive(Debug, Default)]
pub(super) struct Upload {
    ready: VecDeque<Bytes>,
    rest: Option<Incoming>,
    left: u64,
    scan: Scan,
    asked: Asked,
    broken: Option<Flaw>,
}

/// Why a body can not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is longer than the operator allows.
    TooLarge,
    /// The client stayed silent in the middle of it.
    Silent,
    /// The client left.
    Left,
}

impl Upload {
    /// A body without content.
    pub(super) fn empty() -> Self {
        Self::default()
    }

    /// A body that nobody reads on the way.
    pub(super) fn plain(body: Incoming, max: u64) -> Self {
        Self { rest: Some(body), left: max, ..Self::default() }
    }

    /// Begins to read a body of at most `max` bytes.
    ///
    /// # Errors
    /// A [`Flaw`] found before anything was sent.
    pub(super) async fn read(body: Incoming, max: u64) -> Result<Self, Flaw> {
        if body.size_hint().lower() > max {
            return Err(Flaw::TooLarge);
        }
        let mut upload = Self { rest: Some(body), left: max, ..Self::default() };
        let mut ahead = 0;
        while ahead < AHEAD_MAX {
            let Some(rest) = upload.rest.as_mut() else { break };
            let frame = tokio::time::timeout(SILENCE_MAX, rest.frame()).await;
            match frame.map_err(|_| Flaw::Silent)? {
                None => upload.rest = None,
                Some(frame) => {
                    let Ok(data) = frame.map_err(|_| Flaw::Left)?.into_data() else { continue };
                    ahead += data.len();
                    upload.take(&data)?;
                    upload.ready.push_back(data);
                }
            }
        }
        Ok(upload)
    }

    /// What the body was found to hold so far; it grows while a large body passes.
    pub(super) fn asked(&self) -> Asked {
        Arc::clone(&self.asked)
    }

    fn take(&mut self, data: &Bytes) -> Result<(), Flaw> {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(size).ok_or(Flaw::TooLarge)?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.scan.feed(data, |message| {
            if asked.len() < BATCH_MAX {
                asked.push(message);
            }
        });
        Ok(())
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(flaw) = self.broken {
            return Poll::Ready(Some(Err(flaw.into())));
        }
        let Some(rest) = self.rest.as_mut() else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(rest).poll_frame(cx));
        let Some(frame) = frame else {
            self.rest = None;
            return Poll::Ready(None);
        };
        let flaw = match frame {
            Ok(frame) => match frame.data_ref().cloned() {
                None => return Poll::Ready(Some(Ok(frame))),
                Some(data) => match self.take(&data) {
                    Ok(()) => return Poll::Ready(Some(Ok(frame))),
                    Err(flaw) => flaw,
                },
            },
            Err(_) => Flaw::Left,
        };
        self.broken = Some(flaw);
        Poll::Ready(Some(Err(flaw.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ready: usize = self.ready.iter().map(Bytes::len).sum();
        let ready = u64::try_from(ready).unwrap_or(u64::MAX);
        match self.rest.as_ref().map(Body::size_hint) {
            None => SizeHint::with_exact(ready),
            Some(hint) => {
                let mut sum = SizeHint::new();
                sum.set_lower(hint.lower().saturating_add(ready));
                if let Some(upper) = hint.upper() {
                    sum.set_upper(upper.saturating_add(ready));
                }
                sum
            }
        }
    }
}

impl From<Flaw> for io::Error {
    fn from(flaw: Flaw) -> Self {
        Self::other(flaw.text())
    }
}

impl Flaw {
    /// What the client is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the request body is too large",
            Self::Silent => "the request body did not come",
            Self::Left => "the client left",
        }
    }
}
