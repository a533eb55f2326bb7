//! Comments on a silent stream of events, so that proxies in front do not end it, and so that the
//! kernel notices a client that is gone.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock::monotonic;

/// A comment, which clients skip.
pub(in crate::proxy::exchange) const COMMENT: &[u8] = b": ping\n\n";

/// The time between two comments to a client that may be gone.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// When a stream gets the next comment.
#[derive(Debug)]
pub(in crate::proxy::exchange) struct Ping {
    interval: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    data_at: Option<Instant>,
    /// Whether the client closed its half of the connection, and may have closed both.
    is_probing: bool,
}

impl Ping {
    /// A comment after each `interval` without data.
    pub(in crate::proxy::exchange) fn new(interval: Option<Duration>) -> Self {
        Self { interval, timer: None, data_at: None, is_probing: false }
    }

    /// The stream sent data. The timer runs on: to set it again would cost more than to compare when it
    /// ends.
    pub(super) fn on_data(&mut self) {
        if self.timer.is_some() {
            self.data_at = Some(monotonic());
        }
    }

    /// The client closed its half of the connection: a comment at once, and then often, shows whether
    /// it still reads.
    pub(super) fn probe(&mut self) {
        if self.interval.is_some() && !self.is_probing {
            self.is_probing = true;
            self.interval = Some(PROBE_INTERVAL);
            self.timer = Some(Box::pin(tokio::time::sleep(Duration::ZERO)));
        }
    }

    /// Ready when a comment is due.
    pub(in crate::proxy::exchange) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(interval) = self.interval else { return Poll::Pending };
        loop {
            let new = || Box::pin(tokio::time::sleep(interval));
            let timer = self.timer.get_or_insert_with(new);
            std::task::ready!(timer.as_mut().poll(cx));
            let data_at = self.data_at.take();
            timer.as_mut().reset(data_at.unwrap_or_else(monotonic) + interval);
            if data_at.is_none() {
                return Poll::Ready(());
            }
        }
    }
}
