//! Which tools releases list, and which calls are read-only, as far as the method, the release or the
//! operator declares it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::mcp::methods;
use crate::model::{CallKey, ReleaseNumber};

/// Lists that are remembered, of tools and of prompts: those of the newest releases.
const LISTED_MAX: usize = 16;
/// Calls that are remembered as answered.
const ANSWERED_MAX: usize = 512;

/// The names that a release lists for a method.
type Lists = BTreeMap<(ReleaseNumber, &'static str), Arc<BTreeSet<String>>>;

/// The tools that are declared read-only.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ReadOnlyTools {
    annotated: ArcSwap<BTreeSet<String>>,
    configured: ArcSwap<BTreeSet<String>>,
    /// The tools and prompts that each release lists, by the method that calls them, where all of them
    /// are known.
    listed: ArcSwap<Lists>,
    /// The calls that any release has answered well.
    answered: ArcSwap<BTreeSet<CallKey>>,
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

    /// Sets what a release lists for calls of this method.
    pub(in crate::proxy) fn set_listed(
        &self,
        release: ReleaseNumber,
        method: &'static str,
        names: BTreeSet<String>,
    ) {
        let names = Arc::new(names);
        self.listed.rcu(|listed| {
            let mut listed = BTreeMap::clone(listed);
            listed.insert((release, method), Arc::clone(&names));
            while listed.len() > LISTED_MAX {
                listed.pop_first();
            }
            listed
        });
    }

    /// Whether a release is known not to list what a call names.
    pub(in crate::proxy) fn is_unlisted(
        &self,
        release: ReleaseNumber,
        method: &str,
        name: &str,
    ) -> bool {
        let listed = self.listed.load();
        let names = methods::lookup(method).and_then(|it| listed.get(&(release, it.name)));
        names.is_some_and(|names| !names.contains(name))
    }

    /// Records that a release answered a call well. It runs once for each call of each release.
    pub(in crate::proxy) fn set_answered(&self, call: &CallKey) {
        self.answered.rcu(|answered| {
            let mut answered = BTreeSet::clone(answered);
            if answered.len() < ANSWERED_MAX {
                answered.insert(call.clone());
            }
            answered
        });
    }

    /// Whether any release has answered a call well: then it is known, although the protocol or the
    /// list of tools does not name it. A list may depend on credentials, which a probe does not have.
    pub(in crate::proxy) fn was_answered(&self, call: &CallKey) -> bool {
        self.answered.load().contains(call)
    }

    /// Whether a call is read-only. A name that contains escapes never is: it was not decoded.
    pub(in crate::proxy) fn is_read_only(&self, method: &str, name: &str) -> bool {
        methods::is_read_only(method)
            || method == methods::TOOLS_CALL
                && !name.contains('\\')
                && (self.annotated.load().contains(name) || self.configured.load().contains(name))
    }
}
