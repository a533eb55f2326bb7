//! What the control API and the metrics report of the services: their loops, and their incidents.

use crate::control::Status;
use crate::daemon::incidents::Incidents;
use crate::daemon::services::ServiceHandles;
use crate::service::handle::ServiceHandle;

/// The services and their incidents. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Services {
    pub handles: ServiceHandles,
    pub incidents: Incidents,
}

impl Services {
    /// The status of a service with its open reviews. `None`: its loop has ended.
    pub(super) async fn status(&self, handle: &ServiceHandle) -> Option<Status> {
        let mut status = handle.status().await?;
        self.incidents.complete(&mut status);
        Some(status)
    }
}
