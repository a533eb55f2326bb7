use std::collections::BTreeSet;
use std::hash::Hasher as _;

use serde_json::{Value, json};

use super::exchange::Fault;
use super::mcp::{self, Mcp};
use crate::model::{Contract, Era, Part, Shape};

/// Pages of tools that are read. A server that still has more is not believed.
const PAGES_MAX: usize = 20;

/// Pages of any other list. One that has more is not compared.
const PAGES_OTHER_MAX: usize = 5;

/// Names of one kind, and bytes of them, that are kept. A longer list is not compared: it would make
/// a line of the timeline that nobody can read.
const NAMES_MAX: usize = 500;
const BYTES_MAX: usize = 64 * 1024;

/// Protocol versions that are kept.
const VERSIONS_MAX: usize = 32;

/// The other lists: the capability, the method, and the field of the answer.
const LISTS: [(Part, &str, &str, &str); 3] = [
    (Part::Prompt, "prompts", "prompts/list", "prompts"),
    (Part::Resource, "resources", "resources/list", "resources"),
    (Part::Resource, "resources", "resources/templates/list", "resourceTemplates"),
];

/// Legacy versions that are offered besides the newest.
const OLDER: [&str; 2] = ["2025-06-18", "2025-03-26"];

/// How a page of tools is asked for.
enum Through<'a> {
    Modern,
    Legacy(&'a mcp::Session),
}

impl Mcp {
    /// Everything that is offered; `None` when nothing is, or an answer is missing.
    pub(super) async fn contract(&mut self) -> Option<Contract> {
        let mut contract = Contract::default();
        self.see_modern(&mut contract).await?;
        self.see_legacy(&mut contract).await?;
        contract.bound();
        Some(contract).filter(|contract| !contract.protocols.is_empty())
    }

    async fn see_modern(&mut self, contract: &mut Contract) -> Option<()> {
        let found = match self.discover().await {
            Ok(found) => found,
            Err(fault) => return is_no(&fault).then_some(()),
        };
        let modern = mcp::versions(&found)
            .filter(|version| Era::of(version) == Era::Modern)
            .take(VERSIONS_MAX);
        contract.protocols.extend(modern.map(str::to_owned));
        contract.see(&found);
        if offers(&found, "tools") {
            self.see_tools(&Through::Modern, contract).await?;
        }
        self.see_lists(&Through::Modern, &found, contract).await;
        Some(())
    }

    async fn see_legacy(&mut self, contract: &mut Contract) -> Option<()> {
        let session = match self.enter(mcp::LEGACY).await {
            Ok(session) => session,
            Err(fault) => return is_no(&fault).then_some(()),
        };
        contract.protocols.insert(session.protocol.clone());
        contract.see(&session.welcome);
        let through = Through::Legacy(&session);
        let seen = if offers(&session.welcome, "tools") {
            self.see_tools(&through, contract).await
        } else {
            Some(())
        };
        if seen.is_some() {
            self.see_lists(&through, &session.welcome, contract).await;
        }
        self.leave(&session).await;
        seen?;
        for version in OLDER {
            if contract.protocols.contains(version) {
                continue;
            }
            match self.enter(version).await {
                Ok(session) => {
                    // Another version in the answer is a "no" in good manners.
                    if session.protocol == version {
                        contract.protocols.insert(session.protocol.clone());
                    }
                    self.leave(&session).await;
                }
                Err(fault) if is_no(&fault) => {}
                Err(_) => return None,
            }
        }
        Some(())
    }

    async fn see_tools(&mut self, through: &Through<'_>, contract: &mut Contract) -> Option<()> {
        let mut params = json!({});
        for _ in 0..PAGES_MAX {
            let page = self.page(through, "tools/list", params).await.ok()?;
            let tools = page.get("tools").and_then(Value::as_array)?;
            tools.iter().for_each(|tool| contract.see_tool(tool));
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Some(()),
            }
        }
        None
    }

    /// Prompts and resources. A release must not fail for a list that no tool needs: what is not
    /// listed in full is not compared.
    async fn see_lists(&mut self, through: &Through<'_>, offer: &Value, contract: &mut Contract) {
        for (part, capability, method, field) in LISTS {
            if !offers(offer, capability) {
                continue;
            }
            let whole = self.see_list(through, method, field, contract).await.is_some();
            // Many servers that have resources know of no templates, and say so.
            if !whole && method != "resources/templates/list" {
                contract.unknown.insert(part);
            }
        }
    }

    async fn see_list(
        &mut self,
        through: &Through<'_>,
        method: &str,
        field: &str,
        contract: &mut Contract,
    ) -> Option<()> {
        let mut params = json!({});
        for _ in 0..PAGES_OTHER_MAX {
            let page = self.page(through, method, params).await.ok()?;
            let items = page.get(field).and_then(Value::as_array)?;
            items.iter().for_each(|item| contract.see_item(item));
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Some(()),
            }
        }
        None
    }

    async fn page(
        &mut self,
        through: &Through<'_>,
        method: &str,
        params: Value,
    ) -> Result<Value, Fault> {
        match through {
            Through::Modern => self.call_modern(method, params).await,
            Through::Legacy(session) => {
                let answer = self.wire.call(method, params, session.headers()).await?;
                Ok(answer.result)
            }
        }
    }
}

impl Contract {
    /// Takes name and capabilities from an answer to initialize or server/discover.
    fn see(&mut self, answer: &Value) {
        if let Some(server) = mcp::server(answer) {
            self.server = server;
        }
        if let Some(capabilities) = answer.get("capabilities") {
            flatten("", capabilities, &mut self.capabilities);
        }
    }

    /// Takes a tool. One that is listed twice is safe only if both say so.
    fn see_tool(&mut self, tool: &Value) {
        let Some(name) = tool.get("name").and_then(Value::as_str) else { return };
        let known = !self.tools.insert(name.to_owned());
        let safe = tool.pointer("/annotations/readOnlyHint") == Some(&Value::Bool(true));
        if !safe {
            self.safe_tools.remove(name);
        } else if !known {
            self.safe_tools.insert(name.to_owned());
        }
        let shape = Shape {
            required: words(tool.pointer("/inputSchema/required")),
            input: tool.get("inputSchema").map(hash).unwrap_or_default(),
            output: tool.get("outputSchema").map(hash).unwrap_or_default(),
        };
        self.shapes.insert(name.to_owned(), shape);
    }

    /// Takes a prompt, a resource or a template.
    fn see_item(&mut self, item: &Value) {
        let word = |name| item.get(name).and_then(Value::as_str);
        if let Some(uri) = word("uri").or_else(|| word("uriTemplate")) {
            self.resources.insert(uri.to_owned());
        } else if let Some(name) = word("name") {
            let arguments = item.get("arguments").and_then(Value::as_array);
            let required = arguments
                .into_iter()
                .flatten()
                .filter(|it| it.get("required") == Some(&Value::Bool(true)));
            let required = required.filter_map(|it| it.get("name").and_then(Value::as_str));
            self.prompts.insert(name.to_owned(), required.map(str::to_owned).collect());
        }
    }

    /// Forgets lists that are too long for a timeline.
    fn bound(&mut self) {
        let sum = |names: &BTreeSet<String>| names.iter().map(|name| name.len() + 8).sum::<usize>();
        let too_long = |count, bytes| NAMES_MAX < count || BYTES_MAX < bytes;
        let shapes = self.shapes.iter().map(|(name, it)| name.len() + 80 + sum(&it.required)).sum();
        if too_long(self.tools.len(), shapes) {
            self.unknown.insert(Part::Tool);
        }
        let prompts = self.prompts.iter().map(|(name, it)| name.len() + 8 + sum(it)).sum();
        if too_long(self.prompts.len(), prompts) {
            self.unknown.insert(Part::Prompt);
        }
        if too_long(self.resources.len(), sum(&self.resources)) {
            self.unknown.insert(Part::Resource);
        }
        if too_long(self.capabilities.len(), sum(&self.capabilities)) {
            self.unknown.insert(Part::Capability);
            self.capabilities.clear();
        }
        if self.unknown.contains(&Part::Tool) {
            self.tools.clear();
            self.shapes.clear();
        }
        if self.unknown.contains(&Part::Prompt) {
            self.prompts.clear();
        }
        if self.unknown.contains(&Part::Resource) {
            self.resources.clear();
        }
    }
}

/// Whether the server said no, rather than nothing.
fn is_no(fault: &Fault) -> bool {
    match fault {
        Fault::Status { status, .. } => *status < 500 && *status != 429,
        Fault::Error { .. } | Fault::Wrong(_) => true,
        Fault::Refused | Fault::Late => false,
    }
}

fn offers(answer: &Value, capability: &str) -> bool {
    answer.get("capabilities").and_then(|all| all.get(capability)).is_some()
}

/// The texts of an array.
fn words(array: Option<&Value>) -> BTreeSet<String> {
    let all = array.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// The same for the same schema, in whatever order its fields come.
fn hash(schema: &Value) -> String {
    let mut hasher = siphasher::sip::SipHasher::new();
    // Objects are kept sorted by their keys.
    hasher.write(schema.to_string().as_bytes());
    format!("{:016x}", hasher.finish())
}

/// Capabilities as paths. Only what is true, or an object, is offered.
fn flatten(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let Some(fields) = value.as_object() else { return };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_object() || *value == Value::Bool(true) {
            flatten(&path, value, into);
            into.insert(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::flatten;

    #[test]
    fn capabilities_become_paths() {
        let mut paths = BTreeSet::new();
        let offered = json!({
            "tools": {"listChanged": true}, "resources": {"subscribe": false}, "logging": {},
            "experimental": {"x": {"max": 3}}, "sampling": null,
        });
        flatten("", &offered, &mut paths);
        let paths: Vec<_> = paths.iter().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "experimental",
                "experimental.x",
                "logging",
                "resources",
                "tools",
                "tools.listChanged"
            ]
        );
    }
}
