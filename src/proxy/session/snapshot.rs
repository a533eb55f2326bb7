//! What has to be known of a session to open it anew: taken from what passes. No credentials.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::MigrationRefused;

/// What is remembered of one session, in bytes of text. More is not captured.
const SNAPSHOT_BYTES_MAX: usize = 8 * 1024;

/// How a session was opened, and what it asked for since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct OpeningSnapshot {
    /// The parameters of `initialize_request`, as the client wrote them.
    #[serde(rename = "p")]
    pub params: Box<str>,
    /// The protocol version that was agreed on.
    #[serde(rename = "v")]
    pub protocol: Box<str>,
    /// Whether the client has said `notifications/initialized`.
    #[serde(rename = "i", default)]
    pub initialized: bool,
    /// The last `logging/setLevel`.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Box<str>>,
    /// Resources that the client wants to hear of.
    #[serde(rename = "s", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub subscriptions: BTreeSet<Box<str>>,
    /// What the server offered, and what the session has used of it.
    #[serde(rename = "o")]
    pub offered: Capabilities,
    /// See `offered`.
    #[serde(rename = "u", default)]
    pub used: Capabilities,
}

/// Capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::proxy) struct Capabilities(pub u16);

impl Capabilities {
    const TOOLS: Self = Self(1);
    const PROMPTS: Self = Self(1 << 1);
    const RESOURCES: Self = Self(1 << 2);
    const SUBSCRIBE: Self = Self(1 << 3);
    const LOGGING: Self = Self(1 << 4);
    const COMPLETIONS: Self = Self(1 << 5);
    pub(in crate::proxy) const TASKS: Self = Self(1 << 6);

    /// What the capabilities of an `InitializeResult` offer.
    pub(in crate::proxy) fn from_json(capabilities: &Value) -> Self {
        [
            ("/tools", Self::TOOLS),
            ("/prompts", Self::PROMPTS),
            ("/resources", Self::RESOURCES),
            ("/logging", Self::LOGGING),
            ("/completions", Self::COMPLETIONS),
            ("/tasks", Self::TASKS),
        ]
        .into_iter()
        .filter(|(path, _)| capabilities.pointer(path).is_some_and(Value::is_object))
        .chain(
            (capabilities.pointer("/resources/subscribe") == Some(&Value::Bool(true)))
                .then_some(("", Self::SUBSCRIBE)),
        )
        .fold(Self::default(), |sum, (_, bit)| sum.union(bit))
    }

    /// What a method needs.
    pub(in crate::proxy) fn required_by(method: &str) -> Self {
        match method {
            "resources/subscribe" | "resources/unsubscribe" => {
                Self::RESOURCES.union(Self::SUBSCRIBE)
            }
            "logging/setLevel" => Self::LOGGING,
            _ => match method.split('/').next().unwrap_or_default() {
                "tools" => Self::TOOLS,
                "prompts" => Self::PROMPTS,
                "resources" => Self::RESOURCES,
                "completion" => Self::COMPLETIONS,
                "tasks" => Self::TASKS,
                _ => Self::default(),
            },
        }
    }

    /// Both.
    pub(in crate::proxy) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub(in crate::proxy) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Notifications that the lists of these capabilities changed, as JSON.
    pub(in crate::proxy) fn list_changed_notifications(self) -> Vec<String> {
        [(Self::TOOLS, "tools"), (Self::PROMPTS, "prompts"), (Self::RESOURCES, "resources")]
            .into_iter()
            .filter(|(bit, _)| self.contains(*bit))
            .map(|(_, name)| {
                let method = format!("notifications/{name}/list_changed");
                json!({"jsonrpc": "2.0", "method": method}).to_string()
            })
            .collect()
    }
}

impl OpeningSnapshot {
    /// What a client's `initialize_request` and the server's answer to it say. `None` when they are no such
    /// thing, or too long to remember.
    pub(in crate::proxy) fn new(request: &[u8], result: &Value) -> Option<Self> {
        let request: InitializeRequest<'_> = serde_json::from_slice(request).ok()?;
        let params = request.params.get();
        let protocol = result.get("protocolVersion")?.as_str()?;
        let within_limit = params.len() <= SNAPSHOT_BYTES_MAX && protocol.len() <= 32;
        within_limit.then(|| Self {
            params: params.into(),
            protocol: protocol.into(),
            offered: Capabilities::from_json(result.get("capabilities").unwrap_or(&Value::Null)),
            ..Self::default()
        })
    }

    /// A request or notification of the client passed, `name` being its `uri`; whether anything
    /// was learned.
    pub(in crate::proxy) fn observe(&mut self, method: &str, name: Option<&str>) -> bool {
        let used = self.used.union(Capabilities::required_by(method).intersection(self.offered));
        let previous = std::mem::replace(&mut self.used, used);
        let changed = match (method, name) {
            ("notifications/initialized", _) => !std::mem::replace(&mut self.initialized, true),
            ("resources/subscribe", Some(uri)) => {
                let size: usize = self.subscriptions.iter().map(|uri| uri.len()).sum();
                size + uri.len() <= SNAPSHOT_BYTES_MAX && self.subscriptions.insert(uri.into())
            }
            ("resources/unsubscribe", Some(uri)) => self.subscriptions.remove(uri),
            _ => false,
        };
        changed || previous != used
    }

    /// Adds what was learned of the same session elsewhere.
    pub(in crate::proxy) fn merge(&mut self, other: Self) {
        self.initialized |= other.initialized;
        self.used = self.used.union(other.used);
        self.level = other.level.or(self.level.take());
        self.subscriptions.extend(other.subscriptions);
    }

    /// The client set the level of log messages; whether that is news.
    pub(in crate::proxy) fn set_level(&mut self, level: &str) -> bool {
        let changed = level.len() <= 32 && self.level.as_deref() != Some(level);
        if changed {
            self.level = Some(level.into());
        }
        changed
    }

    /// Whether a session can go on at a server that answers `initialize_request` like this.
    ///
    /// # Errors
    /// What is missing there.
    pub(in crate::proxy) fn check_compatible(
        &self,
        result: &Value,
    ) -> Result<(), MigrationRefused> {
        if result.get("protocolVersion").and_then(Value::as_str) != Some(&*self.protocol) {
            return Err(MigrationRefused::Protocol);
        }
        let offered = Capabilities::from_json(result.get("capabilities").unwrap_or(&Value::Null));
        if offered.contains(self.used) { Ok(()) } else { Err(MigrationRefused::Capability) }
    }

    /// The request that opens it anew.
    pub(in crate::proxy) fn initialize_request(&self, id: &str) -> String {
        let params = &self.params;
        format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"initialize","params":{params}}}"#)
    }

    /// What has to be said after that, in order, for everything to be as it was.
    pub(in crate::proxy) fn followup_messages(&self, id: &str) -> Vec<String> {
        let request = |n: usize, method: &str, params: Value| {
            let id = format!("{id}-{n}");
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
        };
        let initialized =
            json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let level =
            self.level.as_deref().map(|it| request(0, "logging/setLevel", json!({"level": it})));
        let subscriptions = self.subscriptions.iter().enumerate();
        let subscribe_requests = subscriptions
            .map(|(n, uri)| request(n + 1, "resources/subscribe", json!({"uri": uri})));
        self.initialized
            .then_some(initialized)
            .into_iter()
            .chain(level)
            .chain(subscribe_requests)
            .collect()
    }

    /// Lists that a client may have to read again after a move.
    pub(in crate::proxy) fn list_capabilities(&self) -> Capabilities {
        self.offered.intersection(
            Capabilities::TOOLS.union(Capabilities::PROMPTS).union(Capabilities::RESOURCES),
        )
    }
}

/// Sets `listChanged` for each list that the server has, since the proxy tells of changes itself.
/// Whether anything was changed.
pub(in crate::proxy) fn advertise_list_changed(result: &mut Value) -> bool {
    let Some(capabilities) = result.get_mut("capabilities") else { return false };
    let mut changed = false;
    for name in ["tools", "prompts", "resources"] {
        if let Some(Value::Object(it)) = capabilities.get_mut(name)
            && it.get("listChanged") != Some(&Value::Bool(true))
        {
            it.insert("listChanged".to_owned(), Value::Bool(true));
            changed = true;
        }
    }
    changed
}

#[derive(Deserialize)]
struct InitializeRequest<'a> {
    #[serde(borrow)]
    params: &'a serde_json::value::RawValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIALIZE_REQUEST: &[u8] =
        br#"{"id":0,"method":"initialize","params":{"z":1.0, "a":{}}}"#;

    fn result() -> Value {
        let tools = json!({"listChanged": true});
        let resources = json!({"subscribe": true});
        let capabilities = json!({"tools": tools, "resources": resources, "logging": {}});
        json!({"protocolVersion": "2025-06-18", "capabilities": capabilities})
    }

    #[test]
    fn a_session_is_opened_anew_as_the_client_opened_it() {
        let mut snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        assert_eq!(
            snapshot.initialize_request("x"),
            r#"{"jsonrpc":"2.0","id":"x","method":"initialize","params":{"z":1.0, "a":{}}}"#
        );
        assert!(snapshot.followup_messages("x").is_empty());
        assert!(snapshot.observe("notifications/initialized", None));
        assert!(!snapshot.observe("notifications/initialized", None));
        assert!(snapshot.observe("resources/subscribe", Some("a://1")));
        assert!(snapshot.observe("resources/subscribe", Some("a://2")));
        assert!(snapshot.observe("resources/unsubscribe", Some("a://1")));
        assert!(snapshot.set_level("warning") && !snapshot.set_level("warning"));
        let rest = snapshot.followup_messages("x");
        assert_eq!(rest.len(), 3);
        assert!(rest[0].contains("notifications/initialized") && !rest[0].contains("\"id\""));
        assert!(rest[1].contains("warning") && rest[2].contains("a://2"), "{rest:?}");
    }

    #[test]
    fn only_what_was_used_is_missed() {
        let mut snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        let mut fewer = result();
        fewer["capabilities"]["resources"] = json!({});
        assert_eq!(snapshot.check_compatible(&fewer), Ok(()));
        snapshot.observe("resources/read", Some("a://1"));
        assert_eq!(snapshot.check_compatible(&fewer), Ok(()));
        snapshot.observe("resources/subscribe", Some("a://1"));
        assert_eq!(snapshot.check_compatible(&fewer), Err(MigrationRefused::Capability));
        // What the server never had can not be missed.
        snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        snapshot.observe("prompts/list", None);
        assert_eq!(snapshot.check_compatible(&result()), Ok(()));
        fewer["protocolVersion"] = json!("2025-03-26");
        assert_eq!(snapshot.check_compatible(&fewer), Err(MigrationRefused::Protocol));
    }

    #[test]
    fn changes_are_promised_for_the_lists_that_are_there() {
        let mut rewritten = result();
        assert!(advertise_list_changed(&mut rewritten));
        assert_eq!(rewritten["capabilities"]["resources"]["listChanged"], true);
        assert_eq!(rewritten["capabilities"].get("prompts"), None);
        assert!(!advertise_list_changed(&mut rewritten));
        let snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &rewritten).unwrap();
        assert_eq!(snapshot.list_capabilities().list_changed_notifications().len(), 2);
    }

    #[test]
    fn what_is_too_long_is_not_captured() {
        let long = format!(r#"{{"params":{{"a":"{}"}}}}"#, "x".repeat(SNAPSHOT_BYTES_MAX));
        assert_eq!(OpeningSnapshot::new(long.as_bytes(), &result()), None);
        let mut snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        snapshot.observe("resources/subscribe", Some(&"x".repeat(SNAPSHOT_BYTES_MAX + 1)));
        assert!(snapshot.subscriptions.is_empty());
    }
}
