//! Shadow calls, as the daemon controls them.

use std::collections::BTreeSet;

use crate::mcp::methods;
use crate::model::{Contract, ContractPart, ReleaseNumber};
use crate::proxy::Proxy;
use crate::proxy::shadow::sender;

impl Proxy {
    /// Samples the failed read-only requests of `from` from now on, and sends up to `count` of the
    /// samples to `to` as shadow calls. Calls above the limit of calls in flight are dropped. Must be
    /// called within a tokio runtime.
    pub fn send_shadow_calls(&self, from: ReleaseNumber, to: ReleaseNumber, count: u32) {
        let view = self.view();
        let (Some(from), Some(to)) = (view.routes.get(from), view.routes.get_open(to)) else {
            return;
        };
        sender::send_samples(from, to, count);
    }

    /// Drops the samples of `from`, and takes no more.
    pub fn stop_shadowing(&self, from: ReleaseNumber) {
        if let Some(from) = self.backend(from) {
            from.samples.set_sampling(false);
        }
    }

    /// The shadow calls that completed on `to` since it was added, and how many of them failed: a
    /// server fault, a tool fault, or no response in time. Inconclusive calls are in neither number.
    pub fn shadow_results(&self, to: ReleaseNumber) -> (u64, u64) {
        self.backend(to).map(|to| to.samples.results()).unwrap_or_default()
    }

    /// Replaces the tools that releases annotate as read-only. Those in the configuration stay.
    pub fn set_read_only_tools(&self, tools: BTreeSet<String>) {
        self.read_only_tools.set_annotated(tools);
        self.refresh_read_only_tools();
    }

    /// Records the tools and prompts that a release lists, where the list is complete: a call of
    /// another one is a fault of the client.
    pub fn set_listed(&self, release: ReleaseNumber, contract: &Contract) {
        let Contract { tools, prompts, incomplete, .. } = contract;
        if !incomplete.contains(&ContractPart::Tool) {
            self.read_only_tools.set_listed(release, methods::TOOLS_CALL, tools.clone());
        }
        if !incomplete.contains(&ContractPart::Prompt) {
            let names = prompts.keys().cloned().collect();
            self.read_only_tools.set_listed(release, methods::PROMPTS_GET, names);
        }
    }

    /// Updates in every release which calls count as repeatable.
    pub(super) fn refresh_read_only_tools(&self) {
        let view = self.view();
        view.routes.backends().iter().for_each(|backend| backend.outcomes.refresh_repeatable());
    }
}
