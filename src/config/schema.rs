//! The keys of the configuration and the shapes of their values: a JSON schema for editors, and the
//! right table of a setting that stands in another one.
//!
//! The texts come from the manual. `tests/documents.rs` holds these keys to it, and `tests/config.rs`
//! holds their shapes to what the checks accept.

use serde_json::{Map, Value, json};

const MANUAL: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/manual/config.md"));

const DAEMON: &str = "[daemon]";
const SERVICE: &str = "[service.NAME]";
const PROBE: &str = "[service.NAME.probe]";
const SCRAPE: &str = "[service.NAME.scrape]";
const LIMITS: &str = "[service.NAME.limits]";
const INCIDENTS: &str = "[incidents]";
const NOTIFY: &str = "[notify.NAME]";

/// The names of services and channels.
const NAME: &str = "^[a-z0-9-]{1,32}$";
const DURATION: &str = r"^\s*[0-9.]+\s*[a-zA-Zµ]";
const SHARE: &str = r"^[0-9.]+\s*%$";

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its table, such as `[service.NAME]`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its value looks like.
    pub shape: Shape,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
    /// Names with texts.
    TextTable,
    /// An IP address and a port.
    Address,
    /// Slots with their addresses.
    Slots,
    /// A time.
    Duration,
    /// A time, or "off".
    DurationOrOff,
    /// A percentage.
    Share,
    /// A percentage, or "off".
    ShareOrOff,
    /// A list of percentages, or "auto".
    SharesOrAuto,
    /// A number of bytes.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these words.
    Words(&'static [&'static str]),
    /// A whole number from the first to the second.
    Integer(u64, u64),
    /// A number that is not negative.
    Number,
    /// True or false.
    Boolean,
    /// `{ under, objective }`.
    Latency,
    /// `{ pointer, value }`.
    Field,
}

const fn key(table: &'static str, name: &'static str, shape: Shape) -> Key {
    Key { table, name, shape }
}

const KEYS: &[Key] = &[
    key(DAEMON, "state_dir", Shape::Text),
    key(DAEMON, "control_socket", Shape::Text),
    key(DAEMON, "metrics", Shape::Address),
    key(DAEMON, "page", Shape::Text),
    key(DAEMON, "page_hosts", Shape::Texts),
    key(DAEMON, "page_url", Shape::Text),
    key(DAEMON, "podman", Shape::Text),
    key(SERVICE, "listen", Shape::Address),
    key(SERVICE, "path", Shape::Text),
    key(SERVICE, "path_case", Shape::Word(&["any", "exact"])),
    key(SERVICE, "hosts", Shape::Texts),
    key(SERVICE, "origins", Shape::Texts),
    key(SERVICE, "trusted_proxies", Shape::Texts),
    key(SERVICE, "upstream_host", Shape::Text),
    key(SERVICE, "sse_ping", Shape::DurationOrOff),
    key(SERVICE, "mode", Shape::Word(&["act", "observe"])),
    key(SERVICE, "session_state", Shape::Word(&["none", "soft", "hard"])),
    key(SERVICE, "move_sessions", Shape::Word(&["auto", "rollback", "both"])),
    key(SERVICE, "ramp", Shape::SharesOrAuto),
    key(SERVICE, "ramp_step", Shape::Duration),
    key(SERVICE, "ramp_wait", Shape::Word(&["continue", "hold"])),
    key(SERVICE, "control", Shape::Integer(2, 10_000)),
    key(SERVICE, "runtime", Shape::Word(&["command", "systemd", "external"])),
    key(SERVICE, "command", Shape::Texts),
    key(SERVICE, "unit", Shape::Text),
    key(SERVICE, "warm_weight", Shape::Integer(1, 10_000)),
    key(SERVICE, "env", Shape::TextTable),
    key(SERVICE, "dir", Shape::Text),
    key(SERVICE, "user", Shape::Text),
    key(SERVICE, "stop_timeout", Shape::Duration),
    key(SERVICE, "slots", Shape::Slots),
    key(SERVICE, "artifact", Shape::Word(&["auto", "image", "path", "opaque"])),
    key(SERVICE, "keep_artifacts", Shape::Integer(2, 100)),
    key(SERVICE, "objective", Shape::Share),
    key(SERVICE, "tool_objective", Shape::ShareOrOff),
    key(SERVICE, "latency", Shape::Latency),
    key(SERVICE, "deadline", Shape::Duration),
    key(SERVICE, "bake", Shape::Duration),
    key(SERVICE, "max_false_rollback", Shape::Number),
    key(SERVICE, "min_effect", Shape::Number),
    key(SERVICE, "burst", Shape::Duration),
    key(SERVICE, "baseline", Shape::Word(&["probes", "required"])),
    key(SERVICE, "client_faults", Shape::Word(&["on", "off"])),
    key(SERVICE, "shape", Shape::Word(&["page", "act", "off"])),
    key(SERVICE, "slowdown", Shape::Word(&["act", "page", "off"])),
    key(SERVICE, "drain_timeout", Shape::Duration),
    key(SERVICE, "session_cost", Shape::Number),
    key(SERVICE, "shadow_calls", Shape::Integer(0, 1_000)),
    key(SERVICE, "repeatable_tools", Shape::Texts),
    key(SERVICE, "after_bake", Shape::Word(&["page", "act", "off"])),
    key(SERVICE, "rollbacks_per_day", Shape::Integer(0, 1_000)),
    key(SERVICE, "start_timeout", Shape::Duration),
    key(PROBE, "kind", Shape::Word(&["mcp", "http", "tcp", "command"])),
    key(PROBE, "every", Shape::Duration),
    key(PROBE, "timeout", Shape::Duration),
    key(PROBE, "ready", Shape::Integer(1, 100)),
    key(PROBE, "failures", Shape::Integer(1, 100)),
    key(PROBE, "http_path", Shape::Text),
    key(PROBE, "status", Shape::Integer(100, 599)),
    key(PROBE, "field", Shape::Field),
    key(PROBE, "command", Shape::Texts),
    key(SCRAPE, "path", Shape::Text),
    key(SCRAPE, "url", Shape::Text),
    key(SCRAPE, "total", Shape::Text),
    key(SCRAPE, "bad", Shape::Text),
    key(SCRAPE, "every", Shape::Duration),
    key(SCRAPE, "timeout", Shape::Duration),
    key(SCRAPE, "objective", Shape::Share),
    key(SCRAPE, "no_data", Shape::Word(&["hold", "ignore"])),
    key(LIMITS, "connections", Shape::Integer(1, 1_000_000)),
    key(LIMITS, "connections_per_address", Shape::Integer(1, 1_000_000)),
    key(LIMITS, "new_sessions_per_address", Shape::Integer(1, 1_000_000)),
    key(LIMITS, "min_rate", Shape::Size),
    key(LIMITS, "body", Shape::Size),
    key(LIMITS, "sessions", Shape::Integer(1, 10_000_000)),
    key(LIMITS, "session_memory", Shape::Size),
    key(LIMITS, "session_idle", Shape::Duration),
    key(LIMITS, "session_move", Shape::Duration),
    key(LIMITS, "streams", Shape::Integer(1, 1_000)),
    key(LIMITS, "client_idle", Shape::Duration),
    key(INCIDENTS, "keep", Shape::Integer(1, i64::MAX.unsigned_abs())),
    key(INCIDENTS, "remind", Shape::DurationOrOff),
    key(INCIDENTS, "require_review", Shape::Boolean),
    key(
        NOTIFY,
        "type",
        Shape::Word(&["webhook", "slack", "pagerduty", "alertmanager", "ntfy", "email", "command"]),
    ),
    key(NOTIFY, "url", Shape::Text),
    key(NOTIFY, "secret_credential", Shape::Text),
    key(NOTIFY, "secret_file", Shape::Text),
    key(NOTIFY, "format", Shape::Word(&["structured", "binary"])),
    key(NOTIFY, "command", Shape::Texts),
    key(NOTIFY, "smtp", Shape::Text),
    key(NOTIFY, "tls", Shape::Word(&["starttls", "tls", "off"])),
    key(NOTIFY, "user", Shape::Text),
    key(NOTIFY, "from", Shape::Text),
    key(NOTIFY, "to", Shape::Texts),
    key(NOTIFY, "kinds", Shape::Words(&["page", "warn", "info", "resolved", "reminder"])),
    key(NOTIFY, "services", Shape::Texts),
    key(NOTIFY, "timeout", Shape::Duration),
];

/// The tables that a setting or a table of this name can stand in.
pub(super) fn tables_of(name: &str) -> Vec<&'static str> {
    match name {
        "probe" => vec![PROBE],
        "scrape" => vec![SCRAPE],
        "limits" => vec![LIMITS],
        "service" => vec![SERVICE],
        "daemon" => vec![DAEMON],
        "incidents" => vec![INCIDENTS],
        "notify" => vec![NOTIFY],
        _ => KEYS.iter().filter(|key| key.name == name).map(|key| key.table).collect(),
    }
}

/// Every setting.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The JSON schema of the configuration (draft 2020-12, json-schema.org). It describes the shape of
/// each value; `rollbackd check` knows more.
pub fn schema() -> Value {
    let mut service = properties(SERVICE);
    for (name, table, required) in [
        ("probe", PROBE, &[][..]),
        ("scrape", SCRAPE, &["total", "bad"][..]),
        ("limits", LIMITS, &[][..]),
    ] {
        service.insert(name.to_owned(), object(properties(table), required));
    }
    let named = |table| {
        json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": table,
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of rollbackd",
        "type": "object",
        "additionalProperties": false,
        "required": ["service"],
        "properties": {
            "daemon": object(properties(DAEMON), &[]),
            "service": named(object(service, &["listen", "runtime", "slots"])),
            "incidents": object(properties(INCIDENTS), &[]),
            "notify": named(object(properties(NOTIFY), &["type"])),
        },
    })
}

fn properties(table: &str) -> Map<String, Value> {
    let keys = KEYS.iter().filter(|key| key.table == table);
    keys.map(|key| {
        let mut value = key.shape.schema();
        if let (Some(value), Some(text)) = (value.as_object_mut(), description(table, key.name)) {
            value.insert("description".to_owned(), text.into());
        }
        (key.name.to_owned(), value)
    })
    .collect()
}

fn object(properties: impl Into<Value>, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties.into(),
    })
}

/// The first paragraph of the entry in the manual, as plain text.
fn description(table: &str, name: &str) -> Option<String> {
    let (_, section) = MANUAL.split_once(&format!("\n## `{table}`\n"))?;
    let section = section.split("\n## ").next()?;
    let (_, entry) = section.split_once(&format!("\n### `{name}`\n"))?;
    let paragraph = entry.trim_start().split("\n\n").next()?;
    Some(paragraph.replace('`', "").split_whitespace().collect::<Vec<_>>().join(" "))
}

impl Shape {
    fn schema(self) -> Value {
        let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
        let list = |items: Value| json!({ "type": "array", "items": items });
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Texts => list(json!({ "type": "string" })),
            Self::TextTable => {
                json!({ "type": "object", "additionalProperties": { "type": "string" } })
            }
            Self::Address => text(r"^.+:[0-9]{1,5}$"),
            Self::Slots => json!({
                "type": "object",
                "minProperties": 2,
                "maxProperties": 16,
                "propertyNames": { "pattern": NAME },
                "additionalProperties": text(r"^(unix:/.+|.+:[0-9]{1,5})$"),
            }),
            Self::Duration => text(DURATION),
            Self::DurationOrOff => json!({ "anyOf": [{ "enum": ["off"] }, text(DURATION)] }),
            Self::Share => text(SHARE),
            Self::ShareOrOff => json!({ "anyOf": [{ "enum": ["off"] }, text(SHARE)] }),
            Self::SharesOrAuto => json!({ "anyOf": [{ "enum": ["auto"] }, list(text(SHARE))] }),
            Self::Size => {
                let with_unit = text(r"^[0-9]+\s*(B|KiB|MiB|GiB)$");
                json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, with_unit] })
            }
            Self::Word(words) => json!({ "enum": words }),
            Self::Words(words) => list(json!({ "enum": words })),
            Self::Integer(low, high) => {
                json!({ "type": "integer", "minimum": low, "maximum": high })
            }
            Self::Number => json!({ "type": "number", "minimum": 0 }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Latency => {
                let keys = json!({ "under": text(DURATION), "objective": text(SHARE) });
                object(keys, &["under"])
            }
            Self::Field => {
                let keys = json!({ "pointer": text("^/"), "value": { "type": "string" } });
                object(keys, &["pointer", "value"])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_description() {
        for Key { table, name, .. } in keys() {
            let text = description(table, name).unwrap_or_default();
            assert!(text.len() > 20 && !text.contains('`'), "{table} {name}: {text:?}");
        }
    }

    #[test]
    fn a_setting_is_found_in_its_tables() {
        assert_eq!(tables_of("session_idle"), [LIMITS]);
        assert_eq!(tables_of("timeout"), [PROBE, SCRAPE, NOTIFY]);
        assert_eq!(tables_of("limits"), [LIMITS]);
        assert!(tables_of("nonsense").is_empty());
    }
}
