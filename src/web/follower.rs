//! The event stream of an open page: the sections that changed, and a beat each second.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::web::pages;
use crate::web::snapshot::{Snapshot, View};

/// Pages that follow at a time.
pub(super) const FOLLOWERS_MAX: usize = 64;

/// The stream of snapshots.
type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Admits followers up to [`FOLLOWERS_MAX`].
pub(super) struct Followers(Arc<Semaphore>);

/// One open page. It holds the newest snapshot only, so a page that reads slowly skips some.
struct Follower {
    snapshots: Snapshots,
    view: View,
    /// The sections as the page has them.
    sent: Vec<(&'static str, Arc<str>)>,
    _permit: OwnedSemaphorePermit,
}

impl Followers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(FOLLOWERS_MAX)))
    }

    /// The body of an event stream. `None`: there are too many.
    pub(super) fn follow(
        &self,
        mut snapshots: Snapshots,
        view: View,
    ) -> Option<UnsyncBoxBody<Bytes, Infallible>> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        // The first message follows at once: the page may be older than the newest snapshot.
        snapshots.mark_changed();
        let follower = Follower { snapshots, view, sent: Vec::new(), _permit: permit };
        let frames = stream::unfold(follower, |mut follower| async move {
            let message = follower.next().await?;
            Some((Ok(Frame::data(Bytes::from(message))), follower))
        });
        Some(StreamBody::new(frames).boxed_unsync())
    }
}

impl Follower {
    /// The next message. `None`: the daemon stops.
    async fn next(&mut self) -> Option<String> {
        loop {
            self.snapshots.changed().await.ok()?;
            let snapshot = self.snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                return Some(self.message(&snapshot));
            }
        }
    }

    fn message(&mut self, snapshot: &Snapshot) -> String {
        let mut message = String::new();
        if self.sent.is_empty() {
            message.push_str("retry: 1000\n\n");
        }
        let sections = match &self.view {
            View::Host => Some(pages::host_sections(snapshot)),
            View::Service(name) => pages::service_sections(snapshot, name),
        };
        for (id, html) in sections.into_iter().flatten() {
            match self.sent.iter_mut().find(|(sent, _)| sent == id) {
                Some((_, sent)) if sent == html => continue,
                Some((_, sent)) => *sent = Arc::clone(html),
                None => self.sent.push((*id, Arc::clone(html))),
            }
            let section = serde_json::json!({ "id": id, "html": **html });
            message.push_str(&format!("event: section\ndata: {section}\n\n"));
        }
        message.push_str(&format!("event: beat\ndata: {}\n\n", snapshot.time_of_day()));
        message
    }
}
