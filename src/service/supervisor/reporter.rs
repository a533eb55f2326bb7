//! What the tasks of a service report to its loop.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::artifact::VerifyError;
use crate::model::{Event, Observation, ReleaseNumber, Signal, TimelineEvent};
use crate::service::inbox::ServiceMessage;

/// The sender that tasks get. It takes reports only: a task cannot stop the loop or give it a command.
///
/// Reports wait while the inbox is full. They are lost when the loop has ended.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(mpsc::Sender<ServiceMessage>);

/// The loop has ended, so no further report is of use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoopEnded;

impl Reporter {
    /// Reports go to this inbox.
    pub(crate) fn new(inbox: mpsc::Sender<ServiceMessage>) -> Self {
        Self(inbox)
    }

    /// Reports what was observed of a release.
    pub(crate) async fn observation(
        &self,
        release: ReleaseNumber,
        observation: Observation,
    ) -> Result<(), LoopEnded> {
        self.send(ServiceMessage::Signal(Signal { release, observation })).await
    }

    /// Reports that the process or unit of a release ended, or did not start.
    pub(crate) async fn exit(&self, release: ReleaseNumber, reason: String) {
        let _ = self.observation(release, Observation::Exited(reason)).await;
    }

    /// Reports something that belongs into the timeline and changes no state.
    pub(crate) async fn release_note(&self, release: ReleaseNumber, text: String) {
        let _ = self.send(ServiceMessage::ReleaseNote(release, text)).await;
    }

    /// Reports something that belongs into the timeline of a deploy and changes no state.
    pub(crate) async fn deploy_note(&self, deploy: ReleaseNumber, text: String) {
        let _ = self.send(ServiceMessage::Fact(deploy, TimelineEvent::Noted, text)).await;
    }

    /// A release started so long ago: another party started it again, or stopped it so that the daemon
    /// starts it again.
    pub(crate) async fn release_started(&self, release: ReleaseNumber, age: Duration) {
        let _ = self.send(ServiceMessage::ReleaseStarted(release, age)).await;
    }

    /// Reports that another program runs in place of a release.
    pub(crate) async fn release_replaced(&self, release: ReleaseNumber, because: String) {
        let _ = self.send(ServiceMessage::ReleaseReplaced(release, because)).await;
    }

    /// Reports the name that a release gives for itself.
    pub(crate) async fn identity(
        &self,
        release: ReleaseNumber,
        name: String,
    ) -> Result<(), LoopEnded> {
        self.send(ServiceMessage::IdentityChanged(release, name)).await
    }

    /// Reports that the artifact of a release cannot be verified.
    pub(crate) async fn verify_failed(&self, release: ReleaseNumber, error: VerifyError) {
        let _ = self.send(ServiceMessage::VerifyFailed(release, error)).await;
    }

    /// Reports the result of an effect.
    pub(crate) async fn event(&self, event: Event) {
        let _ = self.send(ServiceMessage::Event(event)).await;
    }

    async fn send(&self, message: ServiceMessage) -> Result<(), LoopEnded> {
        self.0.send(message).await.map_err(|_| LoopEnded)
    }
}
