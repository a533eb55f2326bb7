//! The services of a daemon, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Settings;
use crate::proxy::Proxy;
use crate::service::handle::ServiceHandle;

/// The handles of all services.
pub(super) type ServiceHandles = Arc<BTreeMap<String, ServiceHandle>>;

/// The proxies of all services.
pub(super) type Proxies = Arc<BTreeMap<String, Proxy>>;

/// The longest drain time-out of all services.
pub(super) fn longest_drain(settings: &Settings) -> Duration {
    settings.services.values().map(|it| it.policy.drain_timeout).max().unwrap_or_default()
}
