//! What has to be known of a session to open it anew: taken from what passes. No credentials.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::Refusal;

/// What is remembered of one session, in bytes of text. More is not captured.
const TEXT_MAX: usize = 8 * 1024;

/// How a session was opened, and what it asked for since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::proxy) struct Captured {
    /// The parameters of `initialize`, as the client wrote them.
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
    pub subscribed: BTreeSet<Box<str>>,
    /// What the server offered, and what the session has used of it.
    #[serde(rename = "o")]
    pub offered: Offer,
    /// See `offered`.
    #[serde(rename = "u", default)]
    pub used: Offer,
}

/// Capabilities, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::proxy) struct Offer(pub u16);

impl Offer {
    const TOOLS: Self = Self(1);
    const PROMPTS: Self = Self(1 << 1);
    const RESOURCES: Self = Self(1 << 2);
    const SUBSCRIBE: Self = Self(1 << 3);
    const LOGGING: Self = Self(1 << 4);
    const COMPLETIONS: Self = Self(1 << 5);
    pub(in crate::proxy) const TASKS: Self = Self(1 << 6);

    /// What the capabilities of an `InitializeResult` offer.
    pub(in crate::proxy) fn read(capabilities: &Value) -> Self {
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
        .fold(Self::default(), |sum, (_, bit)| sum.with(bit))
    }

    /// What a method needs.
    pub(in crate::proxy) fn needed(method: &str) -> Self {
        match method {
            "resources/subscribe" | "resources/unsubscribe" => {
                Self::RESOURCES.with(Self::SUBSCRIBE)
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
    pub(in crate::proxy) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub(in crate::proxy) fn holds(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Notifications that the lists of these capabilities changed, as JSON.
    pub(in crate::proxy) fn changed(self) -> Vec<String> {
        [(Self::TOOLS, "tools"), (Self::PROMPTS, "prompts"), (Self::RESOURCES, "resources")]
            .into_iter()
            .filter(|(bit, _)| self.holds(*bit))
            .map(|(_, name)| {
                let method = format!("notifications/{name}/list_changed");
                json!({"jsonrpc": "2.0", "method": method}).to_string()
            })
            .collect()
    }
}

impl Captured {
    /// What a client's `initialize` and the server's answer to it say. `None` when they are no such
    /// thing, or too long to remember.
    pub(in crate::proxy) fn new(request: &[u8], result: &Value) -> Option<Self> {
        let request: Opening<'_> = serde_json::from_slice(request).ok()?;
        let params = request.params.get();
        let protocol = result.get("protocolVersion")?.as_str()?;
        let short = params.len() <= TEXT_MAX && protocol.len() <= 32;
        short.then(|| Self {
            params: params.into(),
            protocol: protocol.into(),
            offered: Offer::read(result.get("capabilities").unwrap_or(&Value::Null)),
            ..Self::default()
        })
    }

    /// A request or notification of the client passed, `name` being its `uri`; whether anything
    /// was learned.
    pub(in crate::proxy) fn learn(&mut self, method: &str, name: Option<&str>) -> bool {
        let used = self.used.with(Offer::needed(method).both(self.offered));
        let before = std::mem::replace(&mut self.used, used);
        let learned = match (method, name) {
            ("notifications/initialized", _) => !std::mem::replace(&mut self.initialized, true),
            ("resources/subscribe", Some(uri)) => {
                let size: usize = self.subscribed.iter().map(|uri| uri.len()).sum();
                size + uri.len() <= TEXT_MAX && self.subscribed.insert(uri.into())
            }
            ("resources/unsubscribe", Some(uri)) => self.subscribed.remove(uri),
            _ => false,
        };
        learned || before != used
    }

    /// Adds what was learned of the same session elsewhere.
    pub(in crate::proxy) fn join(&mut self, other: Self) {
        self.initialized |= other.initialized;
        self.used = self.used.with(other.used);
        self.level = other.level.or(self.level.take());
        self.subscribed.extend(other.subscribed);
    }

    /// The client set the level of log messages; whether that is news.
    pub(in crate::proxy) fn set_level(&mut self, level: &str) -> bool {
        let news = level.len() <= 32 && self.level.as_deref() != Some(level);
        if news {
            self.level = Some(level.into());
        }
        news
    }

    /// Whether a session can go on at a server that answers `initialize` like this.
    ///
    /// # Errors
    /// What is missing there.
    pub(in crate::proxy) fn fits(&self, result: &Value) -> Result<(), Refusal> {
        if result.get("protocolVersion").and_then(Value::as_str) != Some(&*self.protocol) {
            return Err(Refusal::Protocol);
        }
        let offered = Offer::read(result.get("capabilities").unwrap_or(&Value::Null));
        if offered.holds(self.used) { Ok(()) } else { Err(Refusal::Capability) }
    }

    /// The request that opens it anew.
    pub(in crate::proxy) fn initialize(&self, id: &str) -> String {
        let params = &self.params;
        format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"initialize","params":{params}}}"#)
    }

    /// What has to be said after that, in order, for everything to be as it was.
    pub(in crate::proxy) fn rest(&self, id: &str) -> Vec<String> {
        let ask = |n: usize, method: &str, params: Value| {
            let id = format!("{id}-{n}");
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
        };
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let level =
            self.level.as_deref().map(|it| ask(0, "logging/setLevel", json!({"level": it})));
        let subscribed = self.subscribed.iter().enumerate();
        let wants =
            subscribed.map(|(n, uri)| ask(n + 1, "resources/subscribe", json!({"uri": uri})));
        self.initialized.then_some(ready).into_iter().chain(level).chain(wants).collect()
    }

    /// Lists that a client may have to read again after a move.
    pub(in crate::proxy) fn lists(&self) -> Offer {
        self.offered.both(Offer::TOOLS.with(Offer::PROMPTS).with(Offer::RESOURCES))
    }
}

/// Sets `listChanged` for each list that the server has, since the proxy tells of changes itself.
/// Whether anything was changed.
pub(in crate::proxy) fn promise_changes(result: &mut Value) -> bool {
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
struct Opening<'a> {
    #[serde(borrow)]
    params: &'a serde_json::value::RawValue,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: &[u8] = br#"{"id":0,"method":"initialize","params":{"z":1.0, "a":{}}}"#;

    fn result() -> Value {
        let tools = json!({"listChanged": true});
        let resources = json!({"subscribe": true});
        let capabilities = json!({"tools": tools, "resources": resources, "logging": {}});
        json!({"protocolVersion": "2025-06-18", "capabilities": capabilities})
    }

    #[test]
    fn a_session_is_opened_anew_as_the_client_opened_it() {
        let mut captured = Captured::new(OPENING, &result()).unwrap();
        assert_eq!(
            captured.initialize("x"),
            r#"{"jsonrpc":"2.0","id":"x","method":"initialize","params":{"z":1.0, "a":{}}}"#
        );
        assert!(captured.rest("x").is_empty());
        assert!(captured.learn("notifications/initialized", None));
        assert!(!captured.learn("notifications/initialized", None));
        assert!(captured.learn("resources/subscribe", Some("a://1")));
        assert!(captured.learn("resources/subscribe", Some("a://2")));
        assert!(captured.learn("resources/unsubscribe", Some("a://1")));
        assert!(captured.set_level("warning") && !captured.set_level("warning"));
        let rest = captured.rest("x");
        assert_eq!(rest.len(), 3);
        assert!(rest[0].contains("notifications/initialized") && !rest[0].contains("\"id\""));
        assert!(rest[1].contains("warning") && rest[2].contains("a://2"), "{rest:?}");
    }

    #[test]
    fn only_what_was_used_is_missed() {
        let mut captured = Captured::new(OPENING, &result()).unwrap();
        let mut less = result();
        less["capabilities"]["resources"] = json!({});
        assert_eq!(captured.fits(&less), Ok(()));
        captured.learn("resources/read", Some("a://1"));
        assert_eq!(captured.fits(&less), Ok(()));
        captured.learn("resources/subscribe", Some("a://1"));
        assert_eq!(captured.fits(&less), Err(Refusal::Capability));
        // What the server never had can not be missed.
        captured = Captured::new(OPENING, &result()).unwrap();
        captured.learn("prompts/list", None);
        assert_eq!(captured.fits(&result()), Ok(()));
        less["protocolVersion"] = json!("2025-03-26");
        assert_eq!(captured.fits(&less), Err(Refusal::Protocol));
    }

    #[test]
    fn changes_are_promised_for_the_lists_that_are_there() {
        let mut told = result();
        assert!(promise_changes(&mut told));
        assert_eq!(told["capabilities"]["resources"]["listChanged"], true);
        assert_eq!(told["capabilities"].get("prompts"), None);
        assert!(!promise_changes(&mut told));
        let captured = Captured::new(OPENING, &told).unwrap();
        assert_eq!(captured.lists().changed().len(), 2);
    }

    #[test]
    fn what_is_too_long_is_not_captured() {
        let long = format!(r#"{{"params":{{"a":"{}"}}}}"#, "x".repeat(TEXT_MAX));
        assert_eq!(Captured::new(long.as_bytes(), &result()), None);
        let mut captured = Captured::new(OPENING, &result()).unwrap();
        captured.learn("resources/subscribe", Some(&"x".repeat(TEXT_MAX + 1)));
        assert!(captured.subscribed.is_empty());
    }
}
