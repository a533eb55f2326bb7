//! Which calls are read-only, as far as the method, the release or the operator declares it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::mcp::methods;

/// The tools that are declared read-only.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ReadOnlyTools {
    annotated: ArcSwap<BTreeSet<String>>,
    configured: ArcSwap<BTreeSet<String>>,
}

impl ReadOnlyTools {
    /// Replaces the tools that a release annotates as read-only.
    pub(in crate::proxy) fn set_annotated(&self, tools: BTreeSet<String>) {
        self.annotated.store(Arc::new(tools));
    }

    /// Replaces the tools that the operator lists as read-only.
    pub(in crate::proxy) fn set_configured(&self, tools: BTreeSet<String>) {
        self.configured.store(Arc::new(tools));
    }

    /// Whether a call is read-only. A name that contains escapes never is: it was not decoded.
    pub(in crate::proxy) fn is_read_only(&self, method: &str, name: &str) -> bool {
        methods::is_read_only(method)
            || method == methods::TOOLS_CALL
                && !name.contains('\\')
                && (self.annotated.load().contains(name) || self.configured.load().contains(name))
    }
}
