//! The handle through which the daemon reaches a service loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::config::Service;
use crate::control::{Explanation, Status};
use crate::model::{CommandRequest, ReleaseNumber, TimelineEntry, TimelineEvent};
use crate::service::changes::Changes;
use crate::service::inbox::{CommandError, ServiceMessage, Shutdown};
use crate::service::supervisor::slot_stops::StopCount;

/// Sends messages to one service loop and reads its timeline.
#[derive(Debug, Clone)]
pub(crate) struct ServiceHandle {
    inbox: mpsc::Sender<ServiceMessage>,
    entries: broadcast::Sender<Arc<TimelineEntry>>,
    dir: PathBuf,
    stop_count: StopCount,
}

impl ServiceHandle {
    pub(crate) fn new(
        inbox: mpsc::Sender<ServiceMessage>,
        entries: broadcast::Sender<Arc<TimelineEntry>>,
        dir: PathBuf,
        stop_count: StopCount,
    ) -> Self {
        Self { inbox, entries, dir, stop_count }
    }

    /// Waits until no release is being stopped: its open requests may finish.
    pub(crate) async fn no_stops(&self) {
        self.stop_count.none().await;
    }

    /// The folder of the service's timelines.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Timeline entries, from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<TimelineEntry>> {
        self.entries.subscribe()
    }

    /// The status. `None`: the loop has ended.
    pub(crate) async fn status(&self) -> Option<Status> {
        self.request(ServiceMessage::Status).await?.await.ok()
    }

    /// The explanation. `None`: the loop has ended.
    pub(crate) async fn explain(&self) -> Option<Explanation> {
        self.request(ServiceMessage::Explain).await?.await.ok()
    }

    /// Gives a command, and waits for its first entry. `None`: the loop has ended.
    pub(crate) async fn command(
        &self,
        request: CommandRequest,
    ) -> Option<Result<Arc<TimelineEntry>, CommandError>> {
        self.request(|reply| ServiceMessage::Command(request, reply)).await?.await.ok()
    }

    /// Records something about the incident of a deploy, if it is the newest.
    pub(crate) async fn record_fact(
        &self,
        deploy: ReleaseNumber,
        event: TimelineEvent,
        because: String,
    ) {
        let _ = self.inbox.send(ServiceMessage::Fact(deploy, event, because)).await;
    }

    /// Applies new settings. `None`: the loop has ended.
    pub(crate) async fn configure(&self, service: Service) -> Option<Changes> {
        let service = Arc::new(service);
        self.request(|reply| ServiceMessage::Configure(service, reply)).await?.await.ok()
    }

    /// Stops the loop, so that another daemon takes the service over. The receiver resolves when the
    /// loop has closed all its files.
    pub(crate) async fn hand_over(&self, successor: &str) -> Option<oneshot::Receiver<()>> {
        self.request(|reply| ServiceMessage::HandOver(successor.to_owned(), reply)).await
    }

    /// Stops the service. The receiver resolves when it has stopped.
    pub(crate) async fn shut_down(&self, shutdown: Shutdown) -> Option<oneshot::Receiver<()>> {
        self.request(|reply| ServiceMessage::Stop(shutdown, reply)).await
    }

    /// Makes the loop panic.
    #[cfg(test)]
    pub(crate) async fn inject_panic(&self) {
        let _ = self.inbox.send(ServiceMessage::Panic).await;
    }

    async fn request<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<T>) -> ServiceMessage,
    ) -> Option<oneshot::Receiver<T>> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.ok()?;
        Some(answer)
    }
}
