//! Reads the contract of a server: its versions, capabilities, tools, prompts and resources.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use serde_json::{Value, json};

use crate::mcp::client::ClientSession;
use crate::mcp::{methods, versions};
use crate::model::{Contract, ContractPart, Era, ToolSchema};
use crate::signal::http_client::ProbeError;
use crate::signal::mcp_probe;
use crate::signal::mcp_probe::{McpProbe, has_capability};

/// The most pages of tools that are read. With more, the discovery fails.
const TOOL_PAGES_MAX: usize = 20;

/// The most pages of any other list. A longer list is not compared.
const LIST_PAGES_MAX: usize = 5;

/// The most names of one kind, and their bytes. A longer list is not compared: its line in the
/// timeline would be too long to read.
const NAMES_MAX: usize = 500;
const NAME_BYTES_MAX: usize = 64 * 1024;

/// The most protocol versions that are recorded.
const VERSIONS_MAX: usize = 32;

/// The other lists: the capability, the method, and the field of the result.
const OPTIONAL_LISTS: [(ContractPart, &str, &str, &str); 3] = [
    (ContractPart::Prompt, "prompts", methods::PROMPTS_LIST, "prompts"),
    (ContractPart::Resource, "resources", methods::RESOURCES_LIST, "resources"),
    (ContractPart::Resource, "resources", methods::TEMPLATES_LIST, "resourceTemplates"),
];

/// How a page of a list is requested.
enum RequestMode<'a> {
    Modern,
    Legacy(&'a ClientSession),
}

impl McpProbe {
    /// Reads the whole contract. `in_use`: versions that sessions negotiated. `None` if the server
    /// offers nothing, or a response is missing.
    pub(super) async fn discover_contract(
        &mut self,
        in_use: &BTreeSet<String>,
    ) -> Option<Contract> {
        let mut contract = Contract::default();
        self.discover_modern(&mut contract).await?;
        self.discover_legacy(&mut contract, in_use).await?;
        contract.drop_long_lists();
        Some(contract).filter(|contract| !contract.protocols.is_empty())
    }

    async fn discover_modern(&mut self, contract: &mut Contract) -> Option<()> {
        let found = match self.server_discover().await {
            Ok(found) => found,
            Err(fault) => return is_rejection(&fault).then_some(()),
        };
        let modern = mcp_probe::supported_versions(&found)
            .filter(|version| Era::of(version) == Era::Modern)
            .take(VERSIONS_MAX);
        contract.protocols.extend(modern.map(str::to_owned));
        contract.add_server_info(&found);
        if has_capability(&found, "tools") {
            self.list_tools(&RequestMode::Modern, contract).await?;
        }
        self.list_optional(&RequestMode::Modern, &found, contract).await;
        Some(())
    }

    /// Asks for the versions that are common, and for each one that sessions negotiated.
    async fn discover_legacy(
        &mut self,
        contract: &mut Contract,
        in_use: &BTreeSet<String>,
    ) -> Option<()> {
        let common = std::iter::once(versions::LATEST_LEGACY).chain(versions::OLDER_LEGACY);
        let in_use = in_use.iter().map(String::as_str).filter(|it| Era::of(it) == Era::Legacy);
        let mut has_lists = false;
        for version in common.chain(in_use.take(VERSIONS_MAX)) {
            if contract.protocols.contains(version) {
                continue;
            }
            let session = match self.open_session(version).await {
                Ok(session) => session,
                Err(fault) if is_rejection(&fault) => continue,
                Err(_) => return None,
            };
            // A server that does not support the version answers with one that it does.
            contract.protocols.insert(session.protocol.clone());
            let listed = match std::mem::replace(&mut has_lists, true) {
                true => Some(()),
                false => self.list_all(&session, contract).await,
            };
            self.close_session(&session).await;
            listed?;
        }
        Some(())
    }

    async fn list_all(&mut self, session: &ClientSession, contract: &mut Contract) -> Option<()> {
        contract.add_server_info(&session.initialize_result);
        let mode = RequestMode::Legacy(session);
        if has_capability(&session.initialize_result, "tools") {
            self.list_tools(&mode, contract).await?;
        }
        self.list_optional(&mode, &session.initialize_result, contract).await;
        Some(())
    }

    async fn list_tools(&mut self, mode: &RequestMode<'_>, contract: &mut Contract) -> Option<()> {
        let mut params = json!({});
        for _ in 0..TOOL_PAGES_MAX {
            let page = self.request_page(mode, methods::TOOLS_LIST, params).await.ok()?;
            let tools = page.get("tools").and_then(Value::as_array)?;
            tools.iter().for_each(|tool| contract.add_tool(tool));
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Some(()),
            }
        }
        None
    }

    /// Reads prompts and resources. A list that is incomplete does not fail the release: it is not
    /// compared.
    async fn list_optional(
        &mut self,
        mode: &RequestMode<'_>,
        server_info: &Value,
        contract: &mut Contract,
    ) {
        for (part, capability, method, field) in OPTIONAL_LISTS {
            if !has_capability(server_info, capability) {
                continue;
            }
            let complete = self.list_items(mode, method, field, contract).await.is_some();
            // Many servers with resources do not support templates.
            if !complete && method != methods::TEMPLATES_LIST {
                contract.incomplete.insert(part);
            }
        }
    }

    async fn list_items(
        &mut self,
        mode: &RequestMode<'_>,
        method: &str,
        field: &str,
        contract: &mut Contract,
    ) -> Option<()> {
        let mut params = json!({});
        for _ in 0..LIST_PAGES_MAX {
            let page = self.request_page(mode, method, params).await.ok()?;
            let items = page.get(field).and_then(Value::as_array)?;
            items.iter().for_each(|item| contract.add_item(item));
            match page.get("nextCursor").and_then(Value::as_str) {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Some(()),
            }
        }
        None
    }

    async fn request_page(
        &mut self,
        mode: &RequestMode<'_>,
        method: &str,
        params: Value,
    ) -> Result<Value, ProbeError> {
        match mode {
            RequestMode::Modern => self.call_modern(method, params).await,
            RequestMode::Legacy(session) => {
                let answer = self.rpc.call(|id| session.request(id, method, &params)).await?;
                Ok(answer.result)
            }
        }
    }
}

impl Contract {
    /// Adds the name and capabilities in a result of `initialize` or `server/discover`.
    fn add_server_info(&mut self, answer: &Value) {
        if let Some(server) = mcp_probe::server_identity(answer) {
            self.server = server;
        }
        if let Some(capabilities) = answer.get("capabilities") {
            flatten_capabilities("", capabilities, &mut self.capabilities);
        }
    }

    /// Adds a tool. A tool that is listed twice is read-only if both entries are.
    fn add_tool(&mut self, tool: &Value) {
        let Some(name) = tool.get("name").and_then(Value::as_str) else { return };
        let known = !self.tools.insert(name.to_owned());
        let read_only = tool.pointer("/annotations/readOnlyHint") == Some(&Value::Bool(true));
        if !read_only {
            self.read_only_tools.remove(name);
        } else if !known {
            self.read_only_tools.insert(name.to_owned());
        }
        let shape = ToolSchema {
            required: string_set(tool.pointer("/inputSchema/required")),
            input_hash: tool.get("inputSchema").map(schema_hash).unwrap_or_default(),
            output_hash: tool.get("outputSchema").map(schema_hash).unwrap_or_default(),
        };
        self.tool_schemas.insert(name.to_owned(), shape);
    }

    /// Adds a prompt, a resource or a template.
    fn add_item(&mut self, item: &Value) {
        let text_field = |name| item.get(name).and_then(Value::as_str);
        if let Some(uri) = text_field("uri").or_else(|| text_field("uriTemplate")) {
            self.resources.insert(uri.to_owned());
        } else if let Some(name) = text_field("name") {
            let arguments = item.get("arguments").and_then(Value::as_array);
            let required = arguments
                .into_iter()
                .flatten()
                .filter(|it| it.get("required") == Some(&Value::Bool(true)));
            let required = required.filter_map(|it| it.get("name").and_then(Value::as_str));
            self.prompts.insert(name.to_owned(), required.map(str::to_owned).collect());
        }
    }

    /// Drops the lists that are too long for the timeline.
    fn drop_long_lists(&mut self) {
        let sum = |names: &BTreeSet<String>| names.iter().map(|name| name.len() + 8).sum::<usize>();
        let too_long = |count, bytes| NAMES_MAX < count || NAME_BYTES_MAX < bytes;
        let shapes =
            self.tool_schemas.iter().map(|(name, it)| name.len() + 80 + sum(&it.required)).sum();
        if too_long(self.tools.len(), shapes) {
            self.incomplete.insert(ContractPart::Tool);
        }
        let prompts = self.prompts.iter().map(|(name, it)| name.len() + 8 + sum(it)).sum();
        if too_long(self.prompts.len(), prompts) {
            self.incomplete.insert(ContractPart::Prompt);
        }
        if too_long(self.resources.len(), sum(&self.resources)) {
            self.incomplete.insert(ContractPart::Resource);
        }
        if too_long(self.capabilities.len(), sum(&self.capabilities)) {
            self.incomplete.insert(ContractPart::Capability);
            self.capabilities.clear();
        }
        if self.incomplete.contains(&ContractPart::Tool) {
            self.tools.clear();
            self.tool_schemas.clear();
        }
        if self.incomplete.contains(&ContractPart::Prompt) {
            self.prompts.clear();
        }
        if self.incomplete.contains(&ContractPart::Resource) {
            self.resources.clear();
        }
    }
}

/// Whether the server rejected the request, rather than failed.
fn is_rejection(fault: &ProbeError) -> bool {
    match fault {
        ProbeError::Status { status, .. } => *status < 500 && *status != 429,
        ProbeError::RpcError { .. } | ProbeError::Other(_) => true,
        ProbeError::Refused | ProbeError::TimedOut | ProbeError::OwnShortage(_) => false,
    }
}

/// The strings in an array.
fn string_set(array: Option<&Value>) -> BTreeSet<String> {
    let all = array.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

/// A hash of a schema that does not depend on the order of its fields.
fn schema_hash(schema: &Value) -> String {
    let mut hasher = siphasher::sip::SipHasher::new();
    // `Value` sorts the fields of an object.
    hasher.write(schema.to_string().as_bytes());
    format!("{:016x}", hasher.finish())
}

/// Capabilities as paths. A capability is offered if it is an object, or `true`.
fn flatten_capabilities(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let Some(fields) = value.as_object() else { return };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_object() || *value == Value::Bool(true) {
            flatten_capabilities(&path, value, into);
            into.insert(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::flatten_capabilities;

    #[test]
    fn capabilities_become_paths() {
        let mut paths = BTreeSet::new();
        let offered = json!({
            "tools": {"listChanged": true}, "resources": {"subscribe": false}, "logging": {},
            "experimental": {"x": {"max": 3}}, "sampling": null,
        });
        flatten_capabilities("", &offered, &mut paths);
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
