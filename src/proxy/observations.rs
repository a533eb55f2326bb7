//! What the proxy saw of its releases and of their sessions.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{CallKey, Counts, McpPath, ReleaseNumber, Unjudged};
use crate::proxy::Proxy;

impl Proxy {
    /// The outcomes of the requests of a release, since it was added.
    pub fn counts(&self, number: ReleaseNumber) -> Counts {
        self.backend(number).map(|backend| backend.outcomes.total()).unwrap_or_default()
    }

    /// What passed a release and is no evidence about it.
    pub fn unjudged(&self, number: ReleaseNumber) -> Unjudged {
        self.backend(number).map(|backend| backend.outcomes.unjudged()).unwrap_or_default()
    }

    /// The paths besides the endpoint at which clients send JSON-RPC.
    pub fn mcp_paths(&self) -> Vec<McpPath> {
        self.state.paths.report()
    }

    /// The outcomes of the requests of a release, by method and tool.
    pub fn counts_by_call(&self, number: ReleaseNumber) -> BTreeMap<CallKey, Counts> {
        self.backend(number).map(|backend| backend.outcomes.by_call()).unwrap_or_default()
    }

    /// Whether a release has a session, a stream or an open request.
    pub fn has_traffic(&self, number: ReleaseNumber) -> bool {
        self.backend(number).is_some_and(|it| !it.is_idle())
            || self.state.router.sessions.has_sessions(number)
    }

    /// Whether a release has traffic, and was not cut.
    pub fn is_serving(&self, number: ReleaseNumber) -> bool {
        self.backend(number).is_some_and(|it| it.is_open()) && self.has_traffic(number)
    }

    /// The protocol versions that live sessions of a release negotiated.
    pub fn protocol_versions(&self, number: ReleaseNumber) -> BTreeSet<String> {
        self.state.router.sessions.protocols(number)
    }
}
