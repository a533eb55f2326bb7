//! What is needed to open a session again, recorded from the messages that pass. No credentials.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::mcp::capabilities::Capabilities;
use crate::mcp::{jsonrpc, methods};
use crate::model::MigrationRefused;

/// The most bytes of `initialize` that are recorded. A session with more stays at its release.
const PARAMS_BYTES_MAX: usize = 8 * 1024;
/// The same for subscriptions.
const SUBSCRIPTIONS_BYTES_MAX: usize = 64 * 1024;

/// How the client opened a session, and what it has set up since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct OpeningSnapshot {
    /// The parameters of `initialize`, as the client wrote them.
    #[serde(rename = "p")]
    pub params: Box<str>,
    /// The protocol version that was negotiated.
    #[serde(rename = "v")]
    pub protocol: Box<str>,
    /// Whether the client has sent `notifications/initialized`.
    #[serde(rename = "i", default)]
    pub initialized: bool,
    /// The last `logging/setLevel`.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Box<str>>,
    /// The resources that the client subscribed to.
    #[serde(rename = "s", default, skip_serializing_if = "BTreeSet::is_empty")]
    pub subscriptions: BTreeSet<Box<str>>,
    /// Whether there were more subscriptions than are recorded.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
    /// The capabilities that the server offered.
    #[serde(rename = "o")]
    pub offered: Capabilities,
    /// The offered capabilities that the session has used.
    #[serde(rename = "u", default)]
    pub used: Capabilities,
}

/// A message that restores a part of a session.
#[derive(Debug)]
pub(in crate::proxy) struct FollowupMessage {
    /// The id of a request; `None` for a notification.
    pub id: Option<Value>,
    /// The message, as JSON.
    pub body: String,
}

impl OpeningSnapshot {
    /// Reads an `initialize` request and its result. `None` when they are not valid, or too long.
    pub(in crate::proxy) fn new(request: &[u8], result: &Value) -> Option<Self> {
        let request: InitializeRequest<'_> = serde_json::from_slice(request).ok()?;
        let params = request.params.get();
        let protocol = result.get("protocolVersion")?.as_str()?;
        let within_limit = params.len() <= PARAMS_BYTES_MAX && protocol.len() <= 32;
        within_limit.then(|| Self {
            params: params.into(),
            protocol: protocol.into(),
            offered: Capabilities::from_json(result.get("capabilities").unwrap_or(&Value::Null)),
            ..Self::default()
        })
    }

    /// Records a request or notification of the client, with its `uri` as `name`. Returns whether
    /// the snapshot changed.
    pub(in crate::proxy) fn observe(&mut self, method: &str, name: Option<&str>) -> bool {
        let used = self.used.union(Capabilities::required_by(method).intersection(self.offered));
        let previous = std::mem::replace(&mut self.used, used);
        let changed = match (method, name) {
            (methods::INITIALIZED, _) => !std::mem::replace(&mut self.initialized, true),
            (methods::RESOURCES_SUBSCRIBE, Some(uri)) => {
                let size: usize = self.subscriptions.iter().map(|uri| uri.len()).sum();
                let has_room = size + uri.len() <= SUBSCRIPTIONS_BYTES_MAX;
                let overflows = !has_room && !self.subscriptions.contains(uri);
                let first = overflows && !std::mem::replace(&mut self.incomplete, true);
                first || has_room && self.subscriptions.insert(uri.into())
            }
            // The address is too long for the scanner.
            (methods::RESOURCES_SUBSCRIBE, None) => !std::mem::replace(&mut self.incomplete, true),
            (methods::RESOURCES_UNSUBSCRIBE, Some(uri)) => self.subscriptions.remove(uri),
            _ => false,
        };
        changed || previous != used
    }

    /// The bytes that the client chose.
    pub(in crate::proxy) fn size(&self) -> usize {
        // A set needs some 40 bytes for each entry.
        self.params.len() + self.subscriptions.iter().map(|uri| uri.len() + 40).sum::<usize>()
    }

    /// Adds the snapshot of the same session in the predecessor.
    pub(in crate::proxy) fn merge(&mut self, other: Self) {
        self.initialized |= other.initialized;
        self.incomplete |= other.incomplete;
        self.used = self.used.union(other.used);
        self.level = other.level.or(self.level.take());
        self.subscriptions.extend(other.subscriptions);
    }

    /// Records the log level that the client set. Returns whether it changed.
    pub(in crate::proxy) fn set_level(&mut self, level: &str) -> bool {
        let changed = level.len() <= 32 && self.level.as_deref() != Some(level);
        if changed {
            self.level = Some(level.into());
        }
        changed
    }

    /// Checks whether the session can continue at a server with this `initialize` result.
    ///
    /// # Errors
    /// The server has another protocol version, or lacks a capability that the session has used.
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

    /// The request that opens the session again.
    pub(in crate::proxy) fn initialize_request(&self, id: &str) -> String {
        let params = &self.params;
        format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"initialize","params":{params}}}"#)
    }

    /// The messages that restore the rest of the session after that, in order.
    pub(in crate::proxy) fn followup_messages(&self, id: &str) -> Vec<FollowupMessage> {
        let request = |n: usize, method: &str, params: &Value| {
            let id = Value::from(format!("{id}-{n}"));
            FollowupMessage {
                body: jsonrpc::request(&id, method, params).to_string(),
                id: Some(id),
            }
        };
        let initialized = self.initialized.then(|| {
            let body = jsonrpc::notification(methods::INITIALIZED).to_string();
            FollowupMessage { body, id: None }
        });
        let level = self.level.as_deref();
        let level = level.map(|it| request(0, methods::SET_LEVEL, &json!({"level": it})));
        let subscriptions = self.subscriptions.iter().enumerate();
        let subscriptions = subscriptions
            .map(|(n, uri)| request(n + 1, methods::RESOURCES_SUBSCRIBE, &json!({"uri": uri})));
        initialized.into_iter().chain(level).chain(subscriptions).collect()
    }

    /// The capabilities whose lists a client may have to read again after a move.
    pub(in crate::proxy) fn list_capabilities(&self) -> Capabilities {
        self.offered.lists()
    }
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
    fn a_session_is_opened_again_as_the_client_opened_it() {
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
        assert!(rest[0].body.contains("notifications/initialized") && rest[0].id.is_none());
        assert!(!rest[0].body.contains("\"id\""));
        assert!(rest[1].body.contains("warning") && rest[2].body.contains("a://2"), "{rest:?}");
        assert_eq!(rest[2].id, Some(json!("x-1")));
    }

    #[test]
    fn only_a_used_capability_is_required() {
        let mut snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        let mut fewer = result();
        fewer["capabilities"]["resources"] = json!({});
        assert_eq!(snapshot.check_compatible(&fewer), Ok(()));
        snapshot.observe("resources/read", Some("a://1"));
        assert_eq!(snapshot.check_compatible(&fewer), Ok(()));
        snapshot.observe("resources/subscribe", Some("a://1"));
        assert_eq!(snapshot.check_compatible(&fewer), Err(MigrationRefused::Capability));
        // A capability that the server never offered is not required.
        snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        snapshot.observe("prompts/list", None);
        assert_eq!(snapshot.check_compatible(&result()), Ok(()));
        fewer["protocolVersion"] = json!("2025-03-26");
        assert_eq!(snapshot.check_compatible(&fewer), Err(MigrationRefused::Protocol));
    }

    #[test]
    fn what_is_too_long_is_not_recorded() {
        let long = format!(r#"{{"params":{{"a":"{}"}}}}"#, "x".repeat(PARAMS_BYTES_MAX));
        assert_eq!(OpeningSnapshot::new(long.as_bytes(), &result()), None);
        let mut snapshot = OpeningSnapshot::new(INITIALIZE_REQUEST, &result()).unwrap();
        snapshot.observe("resources/subscribe", Some(&"x".repeat(SUBSCRIPTIONS_BYTES_MAX + 1)));
        assert!(snapshot.subscriptions.is_empty());
    }
}
