//! The capabilities of a server: which ones it offers, and which one a method needs.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{messages, methods};

/// The names of the capabilities that announce changes of their list.
const LISTS: [(&str, Capabilities); 3] = [
    ("tools", Capabilities::TOOLS),
    ("prompts", Capabilities::PROMPTS),
    ("resources", Capabilities::RESOURCES),
];

/// A set of capabilities, one bit each. The numbers are in files and in the handover protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Capabilities(pub(crate) u16);

impl Capabilities {
    const TOOLS: Self = Self(1);
    const PROMPTS: Self = Self(1 << 1);
    const RESOURCES: Self = Self(1 << 2);
    const SUBSCRIBE: Self = Self(1 << 3);
    const LOGGING: Self = Self(1 << 4);
    const COMPLETIONS: Self = Self(1 << 5);
    pub(crate) const TASKS: Self = Self(1 << 6);

    /// The capabilities in the `capabilities` of an `initialize` result.
    pub(crate) fn from_json(capabilities: &Value) -> Self {
        let offered = [
            ("tools", Self::TOOLS),
            ("prompts", Self::PROMPTS),
            ("resources", Self::RESOURCES),
            ("resources.subscribe", Self::SUBSCRIBE),
            ("logging", Self::LOGGING),
            ("completions", Self::COMPLETIONS),
            ("tasks", Self::TASKS),
        ]
        .into_iter()
        .filter(|(path, _)| is_offered(capabilities, path));
        offered.fold(Self::default(), |sum, (_, bit)| sum.union(bit))
    }

    /// The capabilities that a method needs. A method that is not in the table needs the capability
    /// before its slash.
    pub(crate) fn required_by(method: &str) -> Self {
        let path = methods::lookup(method).map(|it| it.capability);
        match path.unwrap_or_else(|| method.split('/').next()) {
            Some("tools") => Self::TOOLS,
            Some("prompts") => Self::PROMPTS,
            Some("resources") => Self::RESOURCES,
            Some("resources.subscribe") => Self::RESOURCES.union(Self::SUBSCRIBE),
            Some("logging") => Self::LOGGING,
            Some("completion" | "completions") => Self::COMPLETIONS,
            Some("tasks") => Self::TASKS,
            _ => Self::default(),
        }
    }

    /// The capabilities whose lists can change.
    pub(crate) fn lists(self) -> Self {
        let all = LISTS.iter().fold(Self::default(), |sum, (_, bit)| sum.union(*bit));
        self.intersection(all)
    }

    /// The capabilities in one of the sets.
    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The capabilities in both sets.
    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set contains all capabilities of `other`.
    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The `list_changed` notifications of the lists in this set.
    pub(crate) fn list_changed_notifications(self) -> Vec<String> {
        let lists = LISTS.iter().filter(|(_, bit)| self.contains(*bit));
        lists.map(|(name, _)| messages::list_changed(name, None)).collect()
    }
}

/// Whether capabilities offer a path, such as `resources.subscribe`: it is an object, or `true`.
pub(crate) fn is_offered(capabilities: &Value, path: &str) -> bool {
    let value = path.split('.').try_fold(capabilities, |value, name| value.get(name));
    value.is_some_and(|value| value.is_object() || *value == Value::Bool(true))
}

/// Sets `listChanged` for each list that the server offers, because the proxy announces changes
/// itself. Returns whether it changed anything.
pub(crate) fn advertise_list_changed(result: &mut Value) -> bool {
    let Some(capabilities) = result.get_mut("capabilities") else { return false };
    let mut changed = false;
    for (name, _) in LISTS {
        if let Some(Value::Object(it)) = capabilities.get_mut(name)
            && it.get("listChanged") != Some(&Value::Bool(true))
        {
            it.insert("listChanged".to_owned(), Value::Bool(true));
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn list_changes_are_advertised_for_the_lists_that_are_offered() {
        let capabilities = json!({
            "tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {},
        });
        let mut result = json!({"capabilities": capabilities});
        assert!(advertise_list_changed(&mut result));
        assert_eq!(result["capabilities"]["resources"]["listChanged"], true);
        assert_eq!(result["capabilities"].get("prompts"), None);
        assert!(!advertise_list_changed(&mut result));
        let lists = Capabilities::from_json(&result["capabilities"]).lists();
        assert_eq!(
            lists.list_changed_notifications(),
            ["tools", "resources"].map(|it| {
                format!(r#"{{"jsonrpc":"2.0","method":"notifications/{it}/list_changed"}}"#)
            })
        );
    }

    #[test]
    fn methods_need_capabilities() {
        let needs = Capabilities::required_by;
        assert_eq!(needs("tools/call"), Capabilities::TOOLS);
        assert_eq!(needs("tools/x"), Capabilities::TOOLS);
        assert_eq!(needs("completion/complete"), Capabilities::COMPLETIONS);
        assert_eq!(needs("ping"), Capabilities::default());
        let subscribe = needs("resources/subscribe");
        assert!(subscribe.contains(needs("resources/read")));
        assert!(!needs("resources/read").contains(subscribe));
    }

    #[test]
    fn only_an_object_or_true_is_offered() {
        let capabilities = json!({"tools": null, "prompts": {}, "resources": {"subscribe": false}});
        assert!(!is_offered(&capabilities, "tools") && is_offered(&capabilities, "prompts"));
        assert!(!is_offered(&capabilities, "resources.subscribe"));
    }
}
