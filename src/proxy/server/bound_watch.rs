//! Which bounds the log has named: each once, until it is clear again.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::model::{Bound, BoundUse};
use crate::mutex::lock;

/// The bounds that the log has named.
#[derive(Debug, Default)]
pub(in crate::proxy) struct BoundWatch(Mutex<BTreeSet<Bound>>);

impl BoundWatch {
    /// The bounds that came near since the last call.
    pub(in crate::proxy) fn newly_near(&self, bounds: &[BoundUse]) -> Vec<BoundUse> {
        let mut named = lock(&self.0);
        // A bound of an address that is gone is clear.
        named.retain(|bound| bounds.iter().any(|it| it.bound == *bound && !it.is_clear()));
        let near = bounds.iter().filter(|it| it.is_near());
        near.filter(|it| named.insert(it.bound)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_named_once_until_it_is_clear() {
        let watch = BoundWatch::default();
        let newly = |used| watch.newly_near(&[BoundUse::new(Bound::Sessions, used, 100)]).len();
        assert_eq!([80, 90, 95, 85, 90, 79, 90].map(newly), [0, 1, 0, 0, 0, 0, 1]);
    }
}
