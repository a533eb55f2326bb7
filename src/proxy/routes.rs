//! Which release gets what. Swapped whole; a request reads it once, without a lock.

use std::sync::Arc;

use crate::model::Number;

use super::upstream::Upstream;

/// The releases that can be reached, and the one that gets new work.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    active: Option<Arc<Upstream>>,
    all: Vec<Arc<Upstream>>,
}

impl Routes {
    /// The release for new sessions and stateless requests.
    pub(super) fn active(&self) -> Option<&Arc<Upstream>> {
        self.active.as_ref()
    }

    /// The release with this number, unless it was left.
    pub(super) fn find(&self, number: Number) -> Option<&Arc<Upstream>> {
        self.known(number).filter(|upstream| !upstream.cut.is_cancelled())
    }

    /// The release with this number, left or not.
    pub(super) fn known(&self, number: Number) -> Option<&Arc<Upstream>> {
        self.all.iter().find(|upstream| upstream.number == number)
    }

    /// All of them.
    pub(super) fn all(&self) -> &[Arc<Upstream>] {
        &self.all
    }

    /// With one release more.
    #[must_use]
    pub(super) fn with(&self, upstream: Arc<Upstream>) -> Self {
        let mut routes = self.without(upstream.number);
        routes.all.push(upstream);
        routes
    }

    /// With one release less.
    #[must_use]
    pub(super) fn without(&self, number: Number) -> Self {
        let mut routes = self.clone();
        routes.all.retain(|upstream| upstream.number != number);
        routes.active = routes.active.filter(|active| active.number != number);
        routes
    }

    /// With new work for `number`; unchanged when it is not known.
    #[must_use]
    pub(super) fn to(&self, number: Number) -> Self {
        let active = self.known(number).cloned().or_else(|| self.active.clone());
        Self { active, all: self.all.clone() }
    }
}
