//! Who is let in, and how those who are in are asked to leave.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;

/// How often it is looked for who is still there.
const LOOK: Duration = Duration::from_millis(10);

/// Before a connection is closed, it was silent for so long: little, where nobody else listens at
/// once; else so long that common clients (Node waits for four seconds, Python for five) have let go
/// of it by themselves. One that is closed may just be taken for a request.
const SILENT: Duration = Duration::from_millis(300);
const SILENT_LONG: Duration = Duration::from_millis(5_500);

/// Who has waited for less than this may well have a short request.
const FRESH: Duration = Duration::from_millis(100);

/// What tells the connections of one listener what to do. Each step includes the ones before, but
/// for `shut`, which goes with any.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Clients are let in.
    pub opened: CancellationToken,
    /// Nobody is let in any more; those who are in stay.
    pub shut: CancellationToken,
    /// Every answer is the last on its connection.
    pub closing: CancellationToken,
    /// Connections from before `closing` end when they have nothing open.
    pub hush: CancellationToken,
    /// Nobody is let in, and every connection ends.
    pub stop: CancellationToken,
    /// Silence is waited for as long as it takes.
    pub patient: AtomicBool,
    old: Arc<()>,
    late: Arc<Mutex<Late>>,
}

/// When each of those who came after `closing` came. Each asks once.
#[derive(Debug, Default)]
pub(super) struct Late {
    last: u64,
    since: BTreeMap<u64, Instant>,
}

/// A client that is in, until it is dropped.
#[derive(Debug)]
pub(super) enum Guest {
    /// It came before `closing`.
    Old(#[expect(dead_code, reason = "it is counted")] Arc<()>),
    /// It came after.
    Late(u64, Arc<Mutex<Late>>),
}

impl Guest {
    /// Whether it came after `closing`.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Late(..))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Self::Late(number, all) = self {
            lock(all).since.remove(number);
        }
    }
}

fn lock(late: &Mutex<Late>) -> MutexGuard<'_, Late> {
    late.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the open requests of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<()>);

/// The answer to one, until its end.
#[derive(Debug)]
pub(super) struct Counted {
    body: Answer,
    _open: Open,
}

impl Open {
    /// Waits until there was none for so long.
    async fn none_for(&self, silent: Duration) {
        let mut none = Duration::ZERO;
        while none < silent {
            tokio::time::sleep(LOOK).await;
            none = if Arc::strong_count(&self.0) > 1 { Duration::ZERO } else { none + LOOK };
        }
    }
}

impl Counted {
    /// An answer that counts as open until it is dropped.
    pub(super) fn new(body: Answer, open: Open) -> Self {
        Self { body, _open: open }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Door {
    /// Waits until a connection may be closed.
    pub(super) async fn silent(&self, open: &Open) {
        let patient = self.patient.load(Ordering::Relaxed);
        tokio::select! {
            () = open.none_for(if patient { SILENT_LONG } else { SILENT }) => (),
            () = self.stop.cancelled() => open.none_for(SILENT).await,
        }
    }

    /// Counts a client.
    pub(super) fn enter(&self) -> Guest {
        if !self.closing.is_cancelled() {
            return Guest::Old(Arc::clone(&self.old));
        }
        let mut late = lock(&self.late);
        late.last += 1;
        let number = late.last;
        late.since.insert(number, Instant::now());
        Guest::Late(number, Arc::clone(&self.late))
    }

    /// Waits until nobody from before `closing` is in.
    pub(super) async fn old_gone(&self) {
        while Arc::strong_count(&self.old) > 1 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a moment when nobody has been waiting for an answer for long.
    pub(super) async fn all_fresh(&self) {
        let fresh = |since: &Instant| since.elapsed() < FRESH;
        while !lock(&self.late).since.values().all(fresh) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until nobody is in.
    pub(super) async fn all_gone(&self) {
        self.old_gone().await;
        self.late_gone().await;
    }

    /// Waits until nobody is in who came after `closing`.
    pub(super) async fn late_gone(&self) {
        while !lock(&self.late).since.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}
