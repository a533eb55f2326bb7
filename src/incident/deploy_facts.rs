//! What a deploy ran with, kept so that the next one can be compared with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::incident::facts::Change;
use crate::incident::text::clean_text;

/// Lines of a unit that are kept.
const LINES_MAX: usize = 500;
/// Characters of a line.
const LINE_MAX: usize = 200;
/// Settings of a unit whose values can be secrets. Their values are left out whole: a quoted value has
/// spaces, and a part of it would look like a name.
const SECRET_SETTINGS: [&str; 3] = ["Environment", "SetCredential", "SetCredentialEncrypted"];

/// What a deploy ran with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployFacts {
    /// The settings of the service that a document is about.
    pub settings: BTreeMap<String, String>,
    /// The settings of its unit: file and line, without secrets. None for other runtimes.
    #[serde(default)]
    pub unit: Option<Vec<String>>,
    /// How its image differs from that of the release before it. None: no image, or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Vec<Change>>,
}

impl DeployFacts {
    /// Takes over what `systemctl cat` printed.
    pub fn set_unit(&mut self, text: &str) {
        let mut file = "";
        let mut lines = Vec::new();
        let logical = logical_lines(text);
        for line in &logical {
            if let Some(path) = line.strip_prefix("# ").filter(|it| is_path(it)) {
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

/// The settings of a unit file, one a line. A line that ends in a backslash which is not escaped continues
/// in the next one that is no comment (systemd.syntax(7)).
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun: Option<String> = None;
    for line in text.lines().map(str::trim_start) {
        let is_comment = line.starts_with(['#', ';']);
        if is_comment && begun.is_some() {
            continue;
        }
        let backslashes = line.bytes().rev().take_while(|it| *it == b'\\').count();
        let continues = backslashes % 2 == 1 && !is_comment;
        let part =
            if continues { line.strip_suffix('\\').unwrap_or(line) } else { line }.trim_end();
        let joined = begun.take().map_or(part.to_owned(), |before| format!("{before} {part}"));
        if continues {
            begun = Some(joined);
        } else {
            lines.push(joined);
        }
    }
    lines.extend(begun);
    lines
}

/// Whether a comment is the path that `systemctl cat` prints before a file.
fn is_path(comment: &str) -> bool {
    comment.starts_with('/') && !comment.contains(char::is_whitespace)
}

/// A setting whose value can be a secret, without the value.
fn without_secret(line: &str) -> String {
    match line.split_once('=') {
        Some((name, _)) if SECRET_SETTINGS.contains(&name.trim()) => {
            format!("{}=[left out]", name.trim())
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(drain: &str, unit: &str) -> DeployFacts {
        let settings = [("drain_timeout".to_owned(), drain.to_owned())].into();
        let mut facts = DeployFacts { settings, ..DeployFacts::default() };
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
            format!("unit: added {file}: Environment=[left out]"),
        ];
        assert_eq!(changes, expected);
        assert_eq!(new.changes_since(&new), []);
        assert_eq!(old.changes_since(&DeployFacts { unit: None, ..old.clone() }), []);
    }

    #[test]
    fn no_part_of_a_secret_value_is_kept() {
        let unit = "# /etc/systemd/system/w@.service\n[Service]\n\
                    Environment=\"PASSPHRASE=correct horse=battery staple\" REGION=eu\n\
                    Environment = ONE=hunter2 \\\n  # the next one is worse\n  TWO=swordfish \\\n\
                    ; and the last\nTHREE=letmein\n\
                    ExecStart=/srv/w \\\n  --port 8401\n\
                    Description=two backslashes \\\\\nSyslogIdentifier=space after \\ \n\
                    SetCredential=pin: 1234 \\\n5678=9\n\
                    SetCredentialEncrypted=key: \\\n        Whxqht+dQJax1aZe\\\n        CGRPOFUbjBh0\n\
                    LoadCredential=pager:/etc/pager.secret\nEnvironmentFile=/etc/w.env\n";
        let lines = facts("30s", unit).unit.unwrap();
        let shown: Vec<_> =
            lines.iter().map(|it| it.strip_prefix("/etc/systemd/system/w@.service: ")).collect();
        let expected = [
            "Environment=[left out]",
            "Environment=[left out]",
            "ExecStart=/srv/w --port 8401",
            "Description=two backslashes \\\\",
            "SyslogIdentifier=space after \\",
            "SetCredential=[left out]",
            "SetCredentialEncrypted=[left out]",
            "LoadCredential=[masked]",
            "EnvironmentFile=/etc/w.env",
        ];
        assert_eq!(shown, expected.map(Some));
    }
}
