//! The releases that requests can go to. A change replaces the whole table.

use std::sync::Arc;

use crate::model::ReleaseNumber;
use crate::proxy::backend::Backend;
use crate::proxy::backend::failing_sources::FailingSources;

/// The reachable releases, and the active one.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct RoutingTable {
    active: Option<Arc<Backend>>,
    backends: Vec<Arc<Backend>>,
}

impl RoutingTable {
    /// The release for new sessions and stateless requests.
    pub(in crate::proxy) fn active(&self) -> Option<&Arc<Backend>> {
        self.active.as_ref()
    }

    /// The release with this number, unless it was cut.
    pub(in crate::proxy) fn get_open(&self, number: ReleaseNumber) -> Option<&Arc<Backend>> {
        self.get(number).filter(|backend| !backend.cut.is_cancelled())
    }

    /// The release with this number, cut or not.
    pub(in crate::proxy) fn get(&self, number: ReleaseNumber) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.number == number)
    }

    /// All releases.
    pub(in crate::proxy) fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// About how many clients without a session had a request served in the last minutes.
    pub(in crate::proxy) fn clients_without_session(&self) -> u64 {
        let releases = self.backends.iter().map(|backend| &*backend.failing_sources);
        FailingSources::clients_without_session(releases)
    }

    /// The table with this release added or replaced.
    #[must_use]
    pub(in crate::proxy) fn with_backend(&self, backend: Arc<Backend>) -> Self {
        let mut table = self.without_backend(backend.number);
        table.backends.push(backend);
        table
    }

    /// The table without this release.
    #[must_use]
    pub(in crate::proxy) fn without_backend(&self, number: ReleaseNumber) -> Self {
        let mut table = self.clone();
        table.backends.retain(|backend| backend.number != number);
        table.active = table.active.filter(|active| active.number != number);
        table
    }

    /// The table with `number` as the active release; unchanged when it does not hold that release.
    #[must_use]
    pub(in crate::proxy) fn with_active(&self, number: ReleaseNumber) -> Self {
        let active = self.get(number).cloned().or_else(|| self.active.clone());
        Self { active, backends: self.backends.clone() }
    }
}
