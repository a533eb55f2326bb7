use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::contract::{Contract, ContractPart};
use crate::model::outcome::CallKey;

/// Names of one kind that are printed; the rest is counted.
const LISTED_MAX: usize = 10;
/// Characters of a name that are printed. Servers choose them.
const NAME_CHARS_MAX: usize = 60;

/// What a new release offers more, less, or otherwise than the active one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractDiff {
    /// The names that the two servers give themselves, old and new.
    pub servers: (String, String),
    /// What the new one offers besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<ContractPart, BTreeSet<String>>,
    /// What it no longer offers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<ContractPart, BTreeSet<String>>,
    /// What it offers in another form: name, and what is different.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<ContractPart, BTreeMap<String, String>>,
    /// What clients used in the last hour, and will miss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "breaks")]
    pub breaking: Vec<BreakingChange>,
    /// What was not compared: one of the two could not or would not list it in full.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[serde(alias = "unknown")]
    pub not_compared: BTreeSet<ContractPart>,
}

/// Something that clients used in the last hour and that is not there any more in that form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakingChange {
    /// What kind of thing.
    pub part: ContractPart,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    #[serde(alias = "how")]
    pub change: String,
    /// How often clients asked for it in the last hour.
    pub calls: u64,
}

impl Contract {
    /// The same without what the timeline has no use for.
    #[must_use]
    pub fn for_timeline(&self) -> Self {
        let mut contract = self.clone();
        if contract.incomplete.contains(&ContractPart::Tool) {
            contract.read_only_tools.clear();
        }
        contract
    }
}

impl ContractDiff {
    /// Compares two contracts; `used` counts what clients asked for.
    pub fn compare(old: &Contract, new: &Contract, used: &BTreeMap<CallKey, u64>) -> Self {
        let mut diff = Self {
            servers: (old.server.clone(), new.server.clone()),
            not_compared: old.incomplete.union(&new.incomplete).copied().collect(),
            ..Self::default()
        };
        let names = |prompts: &BTreeMap<String, _>| prompts.keys().cloned().collect();
        let (old_prompts, new_prompts) = (names(&old.prompts), names(&new.prompts));
        for (part, old, new) in [
            (ContractPart::Protocol, &old.protocols, &new.protocols),
            (ContractPart::Capability, &old.capabilities, &new.capabilities),
            (ContractPart::Tool, &old.tools, &new.tools),
            (ContractPart::Prompt, &old_prompts, &new_prompts),
            (ContractPart::Resource, &old.resources, &new.resources),
        ] {
            if !diff.not_compared.contains(&part) {
                diff.compare_names(part, old, new, used);
            }
        }
        diff.compare_schemas(old, new, used);
        diff
    }

    /// Whether both offer the same, as far as it was compared.
    pub fn is_unchanged(&self) -> bool {
        let Self { servers: (old, new), added, removed, changed, breaking, .. } = self;
        let nothing_else = added.is_empty() && removed.is_empty() && breaking.is_empty();
        old == new && nothing_else && changed.is_empty()
    }

    /// What clients will miss, for a reason text.
    pub fn breaking_summary(&self) -> String {
        let words = self.breaking.iter().map(|it| {
            let BreakingChange { part, name, change: how, calls } = it;
            let unit = if *calls == 1 { "call" } else { "calls" };
            format!("{how} {part} {} ({calls} {unit} in the last hour)", printable(name))
        });
        join_limited(words, self.breaking.len())
    }

    /// What is there only in one of the two.
    fn compare_names(
        &mut self,
        part: ContractPart,
        old: &BTreeSet<String>,
        new: &BTreeSet<String>,
        used: &BTreeMap<CallKey, u64>,
    ) {
        for (target, names) in [
            (&mut self.added, new.difference(old).cloned().collect::<BTreeSet<_>>()),
            (&mut self.removed, old.difference(new).cloned().collect()),
        ] {
            if !names.is_empty() {
                target.insert(part, names);
            }
        }
        for name in old.difference(new) {
            self.record_breaking_if_used(part, name, "drops", used);
        }
    }

    /// What both have, in another form.
    fn compare_schemas(&mut self, old: &Contract, new: &Contract, used: &BTreeMap<CallKey, u64>) {
        for (name, now) in &new.tool_schemas {
            let Some(was) = old.tool_schemas.get(name) else { continue };
            let described_if = |is: bool, what: &str| is.then(|| what.to_owned());
            let words = [
                required_arguments_diff(&was.required, &now.required),
                described_if(
                    was.input_hash != now.input_hash && was.required == now.required,
                    "other arguments",
                ),
                described_if(was.output_hash != now.output_hash, "other output"),
            ];
            self.record_changed(
                ContractPart::Tool,
                name,
                &words.into_iter().flatten().collect::<Vec<_>>(),
                used,
            );
        }
        for (name, now) in &new.prompts {
            let Some(was) = old.prompts.get(name) else { continue };
            let words: Vec<_> = required_arguments_diff(was, now).into_iter().collect();
            self.record_changed(ContractPart::Prompt, name, &words, used);
        }
    }

    fn record_changed(
        &mut self,
        part: ContractPart,
        name: &str,
        words: &[String],
        used: &BTreeMap<CallKey, u64>,
    ) {
        if words.is_empty() || self.not_compared.contains(&part) {
            return;
        }
        if words.iter().any(|word| word.starts_with("now requires")) {
            self.record_breaking_if_used(part, name, "asks more of", used);
        }
        self.changed.entry(part).or_default().insert(name.to_owned(), words.join(", "));
    }

    fn record_breaking_if_used(
        &mut self,
        part: ContractPart,
        name: &str,
        how: &str,
        used: &BTreeMap<CallKey, u64>,
    ) {
        let needs_this = |method: &str, call_name: &str| match part {
            ContractPart::Tool => method == "tools/call" && call_name == name,
            ContractPart::Prompt => method == "prompts/get" && call_name == name,
            ContractPart::Capability => required_capability(method) == Some(name),
            // Reads of a resource are not counted. `decide` compares the protocols of live
            // sessions when the release is ready.
            ContractPart::Protocol | ContractPart::Resource => false,
        };
        let calls = used.iter().filter(|((method, named), _)| needs_this(method, named));
        let calls = calls.fold(0_u64, |sum, (_, calls)| sum.saturating_add(*calls));
        if 0 < calls {
            let (name, how) = (name.to_owned(), how.to_owned());
            self.breaking.push(BreakingChange { part, name, change: how, calls });
        }
    }
}

/// The capability without which a method is not answered.
fn required_capability(method: &str) -> Option<&'static str> {
    Some(match method {
        "tools/list" | "tools/call" => "tools",
        "prompts/list" | "prompts/get" => "prompts",
        "resources/list" | "resources/templates/list" | "resources/read" => "resources",
        "resources/subscribe" | "resources/unsubscribe" => "resources.subscribe",
        "completion/complete" => "completions",
        "logging/setLevel" => "logging",
        _ => return None,
    })
}

/// What is required now and was not, or the reverse.
fn required_arguments_diff(was: &BTreeSet<String>, now: &BTreeSet<String>) -> Option<String> {
    let list = |names: &BTreeSet<String>, others: &BTreeSet<String>| {
        let names: Vec<_> = names.difference(others).map(|name| printable(name)).collect();
        (!names.is_empty()).then(|| join_limited(names.iter().cloned(), names.len()))
    };
    let added = list(now, was).map(|names| format!("now requires {names}"));
    let removed = list(was, now).map(|names| format!("no longer requires {names}"));
    let words: Vec<_> = [added, removed].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The first of many.
fn join_limited(words: impl Iterator<Item = String>, count: usize) -> String {
    let shown: Vec<_> = words.take(LISTED_MAX).collect();
    let text = shown.join(", ");
    if count > LISTED_MAX { format!("{text} and {} more", count - LISTED_MAX) } else { text }
}

/// A name that is safe to print.
fn printable(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(NAME_CHARS_MAX)
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect();
    if name.chars().nth(NAME_CHARS_MAX).is_some() {
        text.push_str("...");
    }
    text
}

impl fmt::Display for ContractDiff {
    /// A short text, to follow "v2 is ready".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (printable(&self.servers.0), printable(&self.servers.1));
        if old == new {
            let before = if new.is_empty() { "" } else { ": " };
            write!(f, "{before}{new}")?;
        } else {
            write!(f, ": {old} -> {new}")?;
        }
        for (verb, parts) in [("adds", &self.added), ("without", &self.removed)] {
            for (part, names) in parts {
                let words = join_limited(names.iter().map(|name| printable(name)), names.len());
                write!(f, "; {verb} {part} {words}")?;
            }
        }
        for (part, names) in &self.changed {
            let words = names.iter().map(|(name, how)| format!("{} ({how})", printable(name)));
            write!(f, "; changes {part} {}", join_limited(words, names.len()))?;
        }
        if !self.not_compared.is_empty() {
            let words = self.not_compared.iter().map(|part| format!("{part}s"));
            write!(f, "; not compared: {}", join_limited(words, self.not_compared.len()))?;
        }
        if !self.breaking.is_empty() {
            write!(f, "; WARNING, it {}", self.breaking_summary())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ToolSchema;

    fn words(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn contract(server: &str, tools: &[(&str, &[&str], &str, &str)]) -> Contract {
        let shape = |required: &[&str], input: &str, output: &str| ToolSchema {
            required: words(required),
            input_hash: input.to_owned(),
            output_hash: output.to_owned(),
        };
        Contract {
            server: server.to_owned(),
            tools: tools.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            tool_schemas: tools
                .iter()
                .map(|(name, required, input, output)| {
                    ((*name).to_owned(), shape(required, input, output))
                })
                .collect(),
            ..Contract::default()
        }
    }

    fn used(method: &str, name: &str, calls: u64) -> BTreeMap<CallKey, u64> {
        BTreeMap::from([((method.into(), name.into()), calls)])
    }

    #[test]
    fn the_same_contract_changes_nothing() {
        let old = contract("x 1", &[("a", &["p"], "1", "")]);
        let same = ContractDiff::compare(&old, &old, &used("tools/call", "a", 5));
        assert_eq!(same.to_string(), ": x 1");
        assert!(same.breaking.is_empty());
    }

    #[test]
    fn what_is_more_less_and_other_is_told() {
        let old =
            contract("x 1", &[("a", &["p"], "1", "1"), ("b", &[], "2", ""), ("d", &[], "1", "")]);
        let new = contract(
            "x 2",
            &[("a", &["p", "q"], "3", "2"), ("c", &[], "2", ""), ("d", &[], "2", "")],
        );
        let changes = ContractDiff::compare(&old, &new, &BTreeMap::new());
        assert_eq!(
            changes.to_string(),
            ": x 1 -> x 2; adds tool c; without tool b; changes tool a (now requires q, other \
             output), d (other arguments)"
        );
        assert!(changes.breaking.is_empty(), "no client used any");
        let json = serde_json::to_string(&changes).unwrap();
        assert_eq!(serde_json::from_str::<ContractDiff>(&json).unwrap(), changes);
    }

    #[test]
    fn what_clients_used_is_a_warning() {
        let old = contract("x", &[("a", &[], "1", ""), ("b", &[], "2", "")]);
        let new = contract("x", &[("a", &["q"], "3", "")]);
        let gone = ContractDiff::compare(&old, &new, &used("tools/call", "b", 41));
        assert!(
            gone.to_string().ends_with("; WARNING, it drops tool b (41 calls in the last hour)")
        );
        let asks = ContractDiff::compare(&old, &new, &used("tools/call", "a", 3));
        assert_eq!(asks.breaking_summary(), "asks more of tool a (3 calls in the last hour)");
        let other = ContractDiff::compare(&old, &new, &used("prompts/get", "b", 3));
        assert!(other.breaking.is_empty());
    }

    #[test]
    fn capabilities_and_prompts_count_by_their_methods() {
        let mut old = contract("x", &[]);
        old.capabilities = words(&["logging", "resources", "resources.subscribe"]);
        old.prompts = BTreeMap::from([("p".to_owned(), words(&[]))]);
        let mut new = contract("x", &[]);
        new.capabilities = words(&["resources"]);
        let of =
            |method, name| ContractDiff::compare(&old, &new, &used(method, name, 1)).breaking.len();
        assert_eq!(of("logging/setLevel", ""), 1);
        assert_eq!(of("resources/subscribe", ""), 1);
        assert_eq!(of("resources/read", ""), 0);
        assert_eq!(of("prompts/get", "p"), 1);
        new.prompts = BTreeMap::from([("p".to_owned(), words(&["who"]))]);
        let asks = ContractDiff::compare(&old, &new, &used("prompts/get", "p", 1));
        assert_eq!(asks.breaking_summary(), "asks more of prompt p (1 call in the last hour)");
    }

    #[test]
    fn what_is_not_known_is_not_compared() {
        let old = contract("x", &[("a", &[], "1", "")]);
        let new =
            Contract { incomplete: BTreeSet::from([ContractPart::Tool]), ..contract("x", &[]) };
        let changes = ContractDiff::compare(&old, &new, &used("tools/call", "a", 1));
        assert_eq!(changes.to_string(), ": x; not compared: tools");
    }

    #[test]
    fn words_are_bounded_and_safe_to_print() {
        let names: Vec<String> =
            (0..15).map(|it| format!("\u{1b}tool{it:02}{}", "x".repeat(300))).collect();
        let tools: Vec<(&str, &[&str], &str, &str)> =
            names.iter().map(|name| (name.as_str(), [].as_slice(), "1", "")).collect();
        let changes =
            ContractDiff::compare(&contract("x", &tools), &contract("x", &[]), &BTreeMap::new());
        let text = changes.to_string();
        assert!(text.ends_with("... and 5 more") && text.len() < 1000, "{text}");
        assert!(!text.contains(char::is_control));
        assert_eq!(changes.removed[&ContractPart::Tool].len(), 15);
    }

    #[test]
    fn an_old_timeline_is_read() {
        let old = r#"{"kind":"ready","data":{"contract":{"server":"x","tools":["a"]}}}"#;
        let fact: crate::model::TimelineEvent = serde_json::from_str(old).unwrap();
        assert!(matches!(
            fact,
            crate::model::TimelineEvent::Ready { contract: Some(_), changes: None, ramp: None, .. }
        ));
    }
}
