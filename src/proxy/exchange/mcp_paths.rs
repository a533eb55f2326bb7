//! The paths besides the endpoint at which clients send JSON-RPC.
//!
//! A release may serve MCP at other paths than the configured one, and anybody may send JSON-RPC to a
//! path that serves nothing. So such a request counts only if the release answered it with a JSON-RPC
//! message, or did so at that path before. All others are shown in `status`, and once in the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::model::McpPath;
use crate::mutex::lock;

/// Paths that are remembered.
const PATHS_MAX: usize = 16;
/// Bytes of a path that are remembered.
const PATH_BYTES_MAX: usize = 128;

/// The paths of one service.
#[derive(Debug)]
pub(in crate::proxy) struct McpPaths {
    service: String,
    paths: Mutex<BTreeMap<Box<str>, PathUse>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct PathUse {
    requests: u64,
    /// Whether a release answered there with a result.
    confirmed: bool,
    logged: bool,
}

/// A request at a path of which it is not known whether it serves MCP.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct UnconfirmedPath {
    all: Arc<McpPaths>,
    path: Box<str>,
}

impl McpPaths {
    /// No paths yet.
    pub(in crate::proxy) fn new(service: &str) -> Self {
        Self { service: service.to_owned(), paths: Mutex::default() }
    }

    /// Counts a request. `None` when a release has answered with a result at this path before.
    pub(in crate::proxy) fn count_request(self: &Arc<Self>, path: &str) -> Option<UnconfirmedPath> {
        let path = truncated(path);
        let mut paths = self.lock();
        if !paths.contains_key(path) && paths.len() >= PATHS_MAX {
            drop_rarest(&mut paths);
        }
        if paths.len() < PATHS_MAX || paths.contains_key(path) {
            let entry = paths.entry(path.into()).or_default();
            entry.requests += 1;
            if entry.confirmed {
                return None;
            }
        }
        Some(UnconfirmedPath { all: Arc::clone(self), path: path.into() })
    }

    /// The service.
    pub(in crate::proxy) fn service(&self) -> &str {
        &self.service
    }

    /// The paths, with how often clients used them.
    pub(in crate::proxy) fn report(&self) -> Vec<McpPath> {
        let paths = self.lock();
        let report = paths.iter().map(|(path, it)| McpPath {
            path: path.to_string(),
            requests: it.requests,
            judged: it.confirmed,
        });
        report.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, PathUse>> {
        lock(&self.paths)
    }
}

impl UnconfirmedPath {
    /// A release answered with a result: requests at this path are judged from now on.
    pub(in crate::proxy) fn confirm(&self) {
        let mut paths = self.all.lock();
        let Some(entry) = paths.get_mut(&self.path) else { return };
        if !std::mem::replace(&mut entry.confirmed, true) {
            let (service, path) = (&self.all.service, &self.path);
            tracing::info!(
                service,
                "clients use MCP at {path}, besides the configured path: rollbackd judges it, too"
            );
        }
    }

    /// A release did not answer with a JSON-RPC message.
    pub(in crate::proxy) fn log_unanswered(&self) {
        let mut paths = self.all.lock();
        let Some(entry) = paths.get_mut(&self.path) else { return };
        if !std::mem::replace(&mut entry.logged, true) {
            let (service, path, requests) = (&self.all.service, &self.path, entry.requests);
            tracing::warn!(
                service,
                "clients send JSON-RPC to {path} ({requests} so far), where the release does not \
                 answer it: not judged; status counts it"
            );
        }
    }
}

fn truncated(path: &str) -> &str {
    path.get(..PATH_BYTES_MAX).unwrap_or(path)
}

/// Makes room: anybody can invent paths that serve nothing.
fn drop_rarest(paths: &mut BTreeMap<Box<str>, PathUse>) {
    let unconfirmed = paths.iter().filter(|(_, it)| !it.confirmed);
    let rarest = unconfirmed.min_by_key(|(_, it)| it.requests).map(|(path, _)| path.clone());
    if let Some(rarest) = rarest {
        paths.remove(&rarest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_paths_do_not_displace_those_that_serve_mcp() {
        let paths = Arc::new(McpPaths::new("test"));
        paths.count_request("/real").unwrap().confirm();
        for number in 0..1000 {
            assert!(paths.count_request(&format!("/{number}")).is_some());
        }
        assert!(paths.count_request("/real").is_none());
        let report = paths.report();
        assert_eq!(report.len(), PATHS_MAX);
        let real = report.iter().find(|it| it.path == "/real").unwrap();
        assert_eq!((real.requests, real.judged), (2, true));
    }

    #[test]
    fn a_long_path_is_shortened() {
        let paths = Arc::new(McpPaths::new("test"));
        paths.count_request(&"/x".repeat(1000));
        assert_eq!(paths.report()[0].path.len(), PATH_BYTES_MAX);
    }
}
