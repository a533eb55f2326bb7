use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::exchange::Fault;
use super::mcp::{self, Mcp};
use crate::model::{Contract, Era};

/// Pages of tools that are read. A server that still has more is not believed.
const PAGES_MAX: usize = 20;

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
        Some(contract).filter(|contract| !contract.protocols.is_empty())
    }

    async fn see_modern(&mut self, contract: &mut Contract) -> Option<()> {
        let found = match self.discover().await {
            Ok(found) => found,
            Err(fault) => return is_no(&fault).then_some(()),
        };
        let modern = mcp::versions(&found).filter(|version| Era::of(version) == Era::Modern);
        contract.protocols.extend(modern.map(str::to_owned));
        contract.see(&found);
        if offers_tools(&found) {
            self.see_tools(&Through::Modern, contract).await
        } else {
            Some(())
        }
    }

    async fn see_legacy(&mut self, contract: &mut Contract) -> Option<()> {
        let session = match self.enter(mcp::LEGACY).await {
            Ok(session) => session,
            Err(fault) => return is_no(&fault).then_some(()),
        };
        contract.protocols.insert(session.protocol.clone());
        contract.see(&session.welcome);
        let seen = if offers_tools(&session.welcome) {
            self.see_tools(&Through::Legacy(&session), contract).await
        } else {
            Some(())
        };
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
            let page = self.page(through, params).await.ok()?;
            let tools = page.get("tools").and_then(Value::as_array)?;
            tools.iter().for_each(|tool| contract.see_tool(tool));
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Some(()),
            }
        }
        None
    }

    async fn page(&mut self, through: &Through<'_>, params: Value) -> Result<Value, Fault> {
        match through {
            Through::Modern => self.call_modern("tools/list", params).await,
            Through::Legacy(session) => {
                let answer = self.wire.call("tools/list", params, session.headers()).await?;
                Ok(answer.result)
            }
        }
    }
}

impl Contract {
    /// Takes name and capabilities from an answer to initialize or server/discover.
    fn see(&mut self, answer: &Value) {
        let meta = answer.pointer("/_meta/io.modelcontextprotocol~1serverInfo");
        if let Some(info) = answer.get("serverInfo").or(meta) {
            let word = |name| info.get(name).and_then(Value::as_str).unwrap_or_default();
            self.server = format!("{} {}", word("name"), word("version")).trim().to_owned();
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

fn offers_tools(answer: &Value) -> bool {
    answer.pointer("/capabilities/tools").is_some()
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
