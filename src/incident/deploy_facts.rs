//! What a deploy ran with, kept so that the next one can be compared with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::incident::facts::Change;
use crate::incident::text::clean_text;

/// Lines of a unit that are kept.
const LINES_MAX: usize = 500;
/// Characters of a line.
const LINE_MAX: usize = 200;
/// Settings of a unit whose values can be secrets: the names are enough.
const SECRET_SETTINGS: [&str; 2] = ["Environment", "SetCredential"];

/// What a deploy ran with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployFacts {
    /// The settings of the service that a document is about.
    pub settings: BTreeMap<String, String>,
    /// The settings of its unit: file and line, without secrets. None for other runtimes.
    #[serde(default)]
    pub unit: Option<Vec<String>>,
}

impl DeployFacts {
    /// Takes over what `systemctl cat` printed.
    pub fn set_unit(&mut self, text: &str) {
        let mut file = "";
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(path) = line.strip_prefix("# ").filter(|it| it.starts_with('/')) {
                file = path;
            } else if !line.is_empty() && !line.starts_with(['#', ';', '[']) {
                lines.push(clean_text(&format!("{file}: {}", without_secret(line)), LINE_MAX));
            }
        }
        lines.truncate(LINES_MAX);
        self.unit = Some(lines);
    }

    /// What is different in `self`, after `previous`.
    pub fn changes_since(&self, previous: &Self) -> Vec<Change> {
        let change = |kind: &str, text: String| Change { kind: kind.to_owned(), text };
        let mut changes = Vec::new();
        let names: BTreeSet<_> = previous.settings.keys().chain(self.settings.keys()).collect();
        for name in names {
            let value =
                |it: &Self| it.settings.get(name).map_or("unset", String::as_str).to_owned();
            let (old, new) = (value(previous), value(self));
            if old != new {
                let text = format!("{name}: {old} -> {new}");
                changes.push(change("configuration", clean_text(&text, LINE_MAX)));
            }
        }
        if let (Some(old), Some(new)) = (&previous.unit, &self.unit) {
            let only = |these: &[String], others: &[String]| -> Vec<String> {
                these.iter().filter(|it| !others.contains(it)).cloned().collect()
            };
            for (what, lines) in [("removed", only(old, new)), ("added", only(new, old))] {
                changes.extend(lines.iter().map(|it| change("unit", format!("{what} {it}"))));
            }
        }
        changes
    }
}

/// `Environment=KEY=VALUE` without the value.
fn without_secret(line: &str) -> String {
    let Some((name, value)) = line.split_once('=') else { return line.to_owned() };
    if !SECRET_SETTINGS.contains(&name.trim()) {
        return line.to_owned();
    }
    let keys = value.split_whitespace().filter_map(|it| it.split_once(['=', ':']));
    let keys: Vec<_> = keys.map(|(key, _)| key.trim_start_matches(['"', '\''])).collect();
    format!("{name}={}", keys.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(drain: &str, unit: &str) -> DeployFacts {
        let settings = [("drain_timeout".to_owned(), drain.to_owned())].into();
        let mut facts = DeployFacts { settings, unit: None };
        facts.set_unit(unit);
        facts
    }

    #[test]
    fn changed_settings_and_drop_ins_are_named_without_secrets() {
        let base = "# /etc/systemd/system/w@.service\n[Service]\n# comment\nExecStart=/srv/w\n";
        let drop_in = "# /etc/systemd/system/w@.service.d/limit.conf\n[Service]\nMemoryMax=64M\n\
                       Environment=\"API_KEY=hunter2hunter2\" REGION=eu\n";
        let (old, new) = (facts("30s", base), facts("10s", &format!("{base}{drop_in}")));
        let changes: Vec<_> =
            new.changes_since(&old).iter().map(|it| format!("{}: {}", it.kind, it.text)).collect();
        let file = "/etc/systemd/system/w@.service.d/limit.conf";
        let expected = [
            "configuration: drain_timeout: 30s -> 10s".to_owned(),
            format!("unit: added {file}: MemoryMax=64M"),
            format!("unit: added {file}: Environment=API_KEY REGION"),
        ];
        assert_eq!(changes, expected);
        assert_eq!(new.changes_since(&new), []);
        assert_eq!(old.changes_since(&DeployFacts { unit: None, ..old.clone() }), []);
    }
}
