use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Readiness;
use super::{Call, Contract, Part};

/// Names of one kind that are printed; the rest is counted.
const SHOWN_MAX: usize = 10;
/// Characters of a name that are printed. Servers choose them.
const NAME_MAX: usize = 60;

/// What a new release offers more, less, or otherwise than the active one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// The names that the two servers give themselves, old and new.
    pub servers: (String, String),
    /// What the new one offers besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub added: BTreeMap<Part, BTreeSet<String>>,
    /// What it no longer offers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<Part, BTreeSet<String>>,
    /// What it offers in another form: name, and what is different.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<Part, BTreeMap<String, String>>,
    /// What clients used in the last hour, and will miss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<Break>,
    /// What was not compared: one of the two could not or would not list it in full.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown: BTreeSet<Part>,
}

/// Something that clients used in the last hour and that is not there any more in that form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Break {
    /// What kind of thing.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub how: String,
    /// How often clients asked for it in the last hour.
    pub calls: u64,
}

impl Readiness {
    /// What the new release changes; `None` where one of the two did not tell what it offers.
    pub fn changes(&self) -> Option<Changes> {
        let (new, active) = (self.new.as_ref()?, self.active.as_ref()?);
        Some(Changes::between(active, new, &self.used))
    }
}

impl Contract {
    /// The same without what the timeline has no use for.
    #[must_use]
    pub fn brief(&self) -> Self {
        let mut brief = self.clone();
        if brief.unknown.contains(&Part::Tool) {
            brief.safe_tools.clear();
        }
        brief
    }
}

impl Changes {
    /// Compares two contracts; `used` tells what clients asked for, and how often.
    pub fn between(old: &Contract, new: &Contract, used: &BTreeMap<Call, u64>) -> Self {
        let mut it = Self {
            servers: (old.server.clone(), new.server.clone()),
            unknown: old.unknown.union(&new.unknown).copied().collect(),
            ..Self::default()
        };
        let names = |prompts: &BTreeMap<String, _>| prompts.keys().cloned().collect();
        let (old_prompts, new_prompts) = (names(&old.prompts), names(&new.prompts));
        for (part, old, new) in [
            (Part::Protocol, &old.protocols, &new.protocols),
            (Part::Capability, &old.capabilities, &new.capabilities),
            (Part::Tool, &old.tools, &new.tools),
            (Part::Prompt, &old_prompts, &new_prompts),
            (Part::Resource, &old.resources, &new.resources),
        ] {
            if !it.unknown.contains(&part) {
                it.sets(part, old, new, used);
            }
        }
        it.forms(old, new, used);
        it
    }

    /// What clients will miss, in words.
    pub fn broken(&self) -> String {
        let words = self.breaks.iter().map(|it| {
            let Break { part, name, how, calls } = it;
            let unit = if *calls == 1 { "call" } else { "calls" };
            format!("{how} {part} {} ({calls} {unit} in the last hour)", plain(name))
        });
        some(words, self.breaks.len())
    }

    /// What is there only in one of the two.
    fn sets(
        &mut self,
        part: Part,
        old: &BTreeSet<String>,
        new: &BTreeSet<String>,
        used: &BTreeMap<Call, u64>,
    ) {
        for (into, more) in [
            (&mut self.added, new.difference(old).cloned().collect::<BTreeSet<_>>()),
            (&mut self.removed, old.difference(new).cloned().collect()),
        ] {
            if !more.is_empty() {
                into.insert(part, more);
            }
        }
        for name in old.difference(new) {
            self.breaks_if_used(part, name, "drops", used);
        }
    }

    /// What both have, in another form.
    fn forms(&mut self, old: &Contract, new: &Contract, used: &BTreeMap<Call, u64>) {
        for (name, now) in &new.shapes {
            let Some(was) = old.shapes.get(name) else { continue };
            let other = |is: bool, what: &str| is.then(|| what.to_owned());
            let words = [
                demands(&was.required, &now.required),
                other(was.input != now.input && was.required == now.required, "other arguments"),
                other(was.output != now.output, "other output"),
            ];
            self.form(Part::Tool, name, &words.into_iter().flatten().collect::<Vec<_>>(), used);
        }
        for (name, now) in &new.prompts {
            let Some(was) = old.prompts.get(name) else { continue };
            let words: Vec<_> = demands(was, now).into_iter().collect();
            self.form(Part::Prompt, name, &words, used);
        }
    }

    fn form(&mut self, part: Part, name: &str, words: &[String], used: &BTreeMap<Call, u64>) {
        if words.is_empty() || self.unknown.contains(&part) {
            return;
        }
        if words.iter().any(|word| word.starts_with("now requires")) {
            self.breaks_if_used(part, name, "asks more of", used);
        }
        self.changed.entry(part).or_default().insert(name.to_owned(), words.join(", "));
    }

    fn breaks_if_used(&mut self, part: Part, name: &str, how: &str, used: &BTreeMap<Call, u64>) {
        let asks_for = |method: &str, named: &str| match part {
            Part::Tool => method == "tools/call" && named == name,
            Part::Prompt => method == "prompts/get" && named == name,
            Part::Capability => needs(method) == Some(name),
            // Who reads which resource is not counted, and the protocols of live sessions are
            // compared elsewhere.
            Part::Protocol | Part::Resource => false,
        };
        let calls = used.iter().filter(|((method, named), _)| asks_for(method, named));
        let calls = calls.fold(0_u64, |sum, (_, calls)| sum.saturating_add(*calls));
        if 0 < calls {
            let (name, how) = (name.to_owned(), how.to_owned());
            self.breaks.push(Break { part, name, how, calls });
        }
    }
}

/// The capability without which a method is not answered.
fn needs(method: &str) -> Option<&'static str> {
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
fn demands(was: &BTreeSet<String>, now: &BTreeSet<String>) -> Option<String> {
    let list = |names: &BTreeSet<String>, others: &BTreeSet<String>| {
        let names: Vec<_> = names.difference(others).map(|name| plain(name)).collect();
        (!names.is_empty()).then(|| some(names.iter().cloned(), names.len()))
    };
    let more = list(now, was).map(|names| format!("now requires {names}"));
    let less = list(was, now).map(|names| format!("no longer requires {names}"));
    let words: Vec<_> = [more, less].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The first of many.
fn some(words: impl Iterator<Item = String>, count: usize) -> String {
    let shown: Vec<_> = words.take(SHOWN_MAX).collect();
    let text = shown.join(", ");
    if count > SHOWN_MAX { format!("{text} and {} more", count - SHOWN_MAX) } else { text }
}

/// A name that is safe to print.
fn plain(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(NAME_MAX)
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect();
    if name.chars().nth(NAME_MAX).is_some() {
        text.push_str("...");
    }
    text
}

impl fmt::Display for Changes {
    /// In a few words, to follow "v2 is ready".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (plain(&self.servers.0), plain(&self.servers.1));
        if old == new {
            let before = if new.is_empty() { "" } else { ": " };
            write!(f, "{before}{new}")?;
        } else {
            write!(f, ": {old} -> {new}")?;
        }
        for (verb, parts) in [("adds", &self.added), ("without", &self.removed)] {
            for (part, names) in parts {
                let words = some(names.iter().map(|name| plain(name)), names.len());
                write!(f, "; {verb} {part} {words}")?;
            }
        }
        for (part, names) in &self.changed {
            let words = names.iter().map(|(name, how)| format!("{} ({how})", plain(name)));
            write!(f, "; changes {part} {}", some(words, names.len()))?;
        }
        if !self.unknown.is_empty() {
            let words = self.unknown.iter().map(|part| format!("{part}s"));
            write!(f, "; not compared: {}", some(words, self.unknown.len()))?;
        }
        if !self.breaks.is_empty() {
            write!(f, "; WARNING, it {}", self.broken())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;

    fn words(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn contract(server: &str, tools: &[(&str, &[&str], &str, &str)]) -> Contract {
        let shape = |required: &[&str], input: &str, output: &str| Shape {
            required: words(required),
            input: input.to_owned(),
            output: output.to_owned(),
        };
        Contract {
            server: server.to_owned(),
            tools: tools.iter().map(|(name, ..)| (*name).to_owned()).collect(),
            shapes: tools
                .iter()
                .map(|(name, required, input, output)| {
                    ((*name).to_owned(), shape(required, input, output))
                })
                .collect(),
            ..Contract::default()
        }
    }

    fn used(method: &str, name: &str, calls: u64) -> BTreeMap<Call, u64> {
        BTreeMap::from([((method.into(), name.into()), calls)])
    }

    #[test]
    fn the_same_contract_changes_nothing() {
        let old = contract("x 1", &[("a", &["p"], "1", "")]);
        let same = Changes::between(&old, &old, &used("tools/call", "a", 5));
        assert_eq!(same.to_string(), ": x 1");
        assert!(same.breaks.is_empty());
    }

    #[test]
    fn what_is_more_less_and_other_is_told() {
        let old =
            contract("x 1", &[("a", &["p"], "1", "1"), ("b", &[], "2", ""), ("d", &[], "1", "")]);
        let new = contract(
            "x 2",
            &[("a", &["p", "q"], "3", "2"), ("c", &[], "2", ""), ("d", &[], "2", "")],
        );
        let changes = Changes::between(&old, &new, &BTreeMap::new());
        assert_eq!(
            changes.to_string(),
            ": x 1 -> x 2; adds tool c; without tool b; changes tool a (now requires q, other \
             output), d (other arguments)"
        );
        assert!(changes.breaks.is_empty(), "nobody used any");
        let json = serde_json::to_string(&changes).unwrap();
        assert_eq!(serde_json::from_str::<Changes>(&json).unwrap(), changes);
    }

    #[test]
    fn what_clients_used_is_a_warning() {
        let old = contract("x", &[("a", &[], "1", ""), ("b", &[], "2", "")]);
        let new = contract("x", &[("a", &["q"], "3", "")]);
        let gone = Changes::between(&old, &new, &used("tools/call", "b", 41));
        assert!(
            gone.to_string().ends_with("; WARNING, it drops tool b (41 calls in the last hour)")
        );
        let asks = Changes::between(&old, &new, &used("tools/call", "a", 3));
        assert_eq!(asks.broken(), "asks more of tool a (3 calls in the last hour)");
        let other = Changes::between(&old, &new, &used("prompts/get", "b", 3));
        assert!(other.breaks.is_empty());
    }

    #[test]
    fn capabilities_and_prompts_count_by_their_methods() {
        let mut old = contract("x", &[]);
        old.capabilities = words(&["logging", "resources", "resources.subscribe"]);
        old.prompts = BTreeMap::from([("p".to_owned(), words(&[]))]);
        let mut new = contract("x", &[]);
        new.capabilities = words(&["resources"]);
        let of = |method, name| Changes::between(&old, &new, &used(method, name, 1)).breaks.len();
        assert_eq!(of("logging/setLevel", ""), 1);
        assert_eq!(of("resources/subscribe", ""), 1);
        assert_eq!(of("resources/read", ""), 0);
        assert_eq!(of("prompts/get", "p"), 1);
        new.prompts = BTreeMap::from([("p".to_owned(), words(&["who"]))]);
        let asks = Changes::between(&old, &new, &used("prompts/get", "p", 1));
        assert_eq!(asks.broken(), "asks more of prompt p (1 call in the last hour)");
    }

    #[test]
    fn what_is_not_known_is_not_compared() {
        let old = contract("x", &[("a", &[], "1", "")]);
        let new = Contract { unknown: BTreeSet::from([Part::Tool]), ..contract("x", &[]) };
        let changes = Changes::between(&old, &new, &used("tools/call", "a", 1));
        assert_eq!(changes.to_string(), ": x; not compared: tools");
    }

    #[test]
    fn words_are_bounded_and_safe_to_print() {
        let names: Vec<String> =
            (0..15).map(|it| format!("\u{1b}tool{it:02}{}", "x".repeat(300))).collect();
        let tools: Vec<(&str, &[&str], &str, &str)> =
            names.iter().map(|name| (name.as_str(), [].as_slice(), "1", "")).collect();
        let changes =
            Changes::between(&contract("x", &tools), &contract("x", &[]), &BTreeMap::new());
        let text = changes.to_string();
        assert!(text.ends_with("... and 5 more") && text.len() < 1000, "{text}");
        assert!(!text.contains(char::is_control));
        assert_eq!(changes.removed[&Part::Tool].len(), 15);
    }

    #[test]
    fn an_old_timeline_is_read() {
        let old = r#"{"kind":"ready","data":{"contract":{"server":"x","tools":["a"]}}}"#;
        let fact: crate::model::Fact = serde_json::from_str(old).unwrap();
        assert!(matches!(fact, crate::model::Fact::Ready { contract: Some(_), changes: None }));
    }
}
