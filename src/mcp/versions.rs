//! Protocol versions, and the `_meta` keys that modern messages carry.

/// The version of a modern request.
pub(crate) const MODERN: &str = "2026-07-28";
/// The version that a legacy client offers first.
pub(crate) const LATEST_LEGACY: &str = "2025-11-25";
/// Older legacy versions that rollbackd asks for.
pub(crate) const OLDER_LEGACY: [&str; 2] = ["2025-06-18", "2025-03-26"];
/// Every version that was ever published.
pub(crate) const PUBLISHED: [&str; 6] =
    ["2024-10-07", "2024-11-05", "2025-03-26", "2025-06-18", LATEST_LEGACY, MODERN];
/// The version of a request that names none.
pub(crate) const DEFAULT: &str = "2025-03-26";

/// The version of a request.
pub(crate) const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The capabilities of the client.
pub(crate) const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The name and version of the client.
pub(crate) const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The name and version of the server.
pub(crate) const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// The id of the `subscriptions/listen` request that a message belongs to.
pub(crate) const META_SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Era;

    #[test]
    fn each_version_has_its_era() {
        assert_eq!(Era::of(MODERN), Era::Modern);
        assert!(
            OLDER_LEGACY
                .iter()
                .chain([&LATEST_LEGACY, &DEFAULT])
                .all(|it| { Era::of(it) == Era::Legacy })
        );
    }
}
