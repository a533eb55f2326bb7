//! Which release gets what. Swapped whole; a request reads it once, without a lock.

use std::sync::Arc;

use crate::model::ReleaseNumber;
use crate::proxy::backend::Backend;

/// The releases that can be reached, and the one that gets new work.
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

    /// The release with this number, unless it was left.
    pub(in crate::proxy) fn get_open(&self, number: ReleaseNumber) -> Option<&Arc<Backend>> {
        self.get(number).filter(|backend| !backend.cut.is_cancelled())
    }

    /// The release with this number, left or not.
    pub(in crate::proxy) fn get(&self, number: ReleaseNumber) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.number == number)
    }

    /// All of them.
    pub(in crate::proxy) fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// With one release more.
    #[must_use]
    pub(in crate::proxy) fn with_backend(&self, backend: Arc<Backend>) -> Self {
        let mut table = self.without_backend(backend.number);
        table.backends.push(backend);
        table
    }

    /// With one release less.
    #[must_use]
    pub(in crate::proxy) fn without_backend(&self, number: ReleaseNumber) -> Self {
        let mut table = self.clone();
        table.backends.retain(|backend| backend.number != number);
        table.active = table.active.filter(|active| active.number != number);
        table
    }

    /// With new work for `number`; unchanged when it is not known.
    #[must_use]
    pub(in crate::proxy) fn with_active(&self, number: ReleaseNumber) -> Self {
        let active = self.get(number).cloned().or_else(|| self.active.clone());
        Self { active, backends: self.backends.clone() }
    }
}
