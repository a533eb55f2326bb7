//! What the control API and the metrics report of the services: their loops, and their incidents.

use tokio::sync::mpsc;

use crate::control::{Explanation, ExplanationPoint, Status};
use crate::daemon::incidents::Incidents;
use crate::daemon::reload::ReloadRequest;
use crate::daemon::services::ServiceHandles;
use crate::service::handle::ServiceHandle;

/// The services and their incidents. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub handles: ServiceHandles,
    pub incidents: Incidents,
    /// To the task that owns the settings.
    pub reloads: mpsc::Sender<ReloadRequest>,
}

impl Services {
    /// The status of a service with its open reviews. `None`: its loop has ended.
    pub(super) async fn status(&self, handle: &ServiceHandle) -> Option<Status> {
        let mut status = handle.status().await?;
        self.incidents.complete(&mut status);
        Some(status)
    }

    /// The explanation of a service with its open reviews. `None`: its loop has ended.
    pub(super) async fn explain(&self, handle: &ServiceHandle) -> Option<Explanation> {
        let mut explanation = handle.explain().await?;
        if let Some(text) = self.incidents.review_text(&explanation.service) {
            explanation.points.push(ExplanationPoint { topic: "open review".to_owned(), text });
        }
        Some(explanation)
    }
}
