//! One JSON-RPC message, reduced to what decides about a request.

/// The fields of one JSON-RPC message that the proxy uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Whether it says `"jsonrpc": "2.0"`.
    pub json_rpc: bool,
    /// The id as written, quotes included: `7` or `"a"`. `None` for a notification.
    pub id: Option<Box<str>>,
    /// The method, of a request or notification.
    pub method: Option<Box<str>>,
    /// The tool, prompt or resource: `params.uri` of a `resources/*` method, else `params.name`, or
    /// `params.uri` where there is no name.
    pub name: Option<Box<str>>,
    /// Whether another reader may take another method or name from it: a key is escaped, repeated or
    /// spelled in another case, or a value is too long or no text.
    pub is_ambiguous: bool,
    /// `params.requestId`, written as an id: the request that a cancellation names.
    pub request_id: Option<Box<str>>,
    /// `params.protocolVersion`, or `result.protocolVersion`.
    pub protocol_version: Option<Box<str>>,
    /// `params.taskId`: the task that the request names.
    pub task_id: Option<Box<str>>,
    /// Whether it has `params.task`: the request starts a task.
    pub requests_task: bool,
    /// `result.status`: the state of a task.
    pub task_status: Option<Box<str>>,
    /// A hash of `params.requestState`, or of `result.requestState`.
    pub request_state_hash: Option<u64>,
    /// Whether it has a `result`.
    pub has_result: bool,
    /// Whether it has an `error`.
    pub has_error: bool,
    /// `error.code`.
    pub error_code: Option<i64>,
    /// Whether `result.isError` is true.
    pub is_tool_error: bool,
    /// Bytes of what the result carries: `content`, `contents`, `messages`, `tools` and the like. 0 if all
    /// of it is empty; `None` if it has none of these.
    pub content_bytes: Option<u64>,
    /// Whether `result.resultType` is `input_required`.
    pub input_required: bool,
}

impl Message {
    /// Its result carries a value of so many bytes.
    pub(super) fn add_content(&mut self, bytes: u64) {
        *self.content_bytes.get_or_insert(0) += bytes;
    }

    /// Whether it is the response to a request.
    pub(crate) fn is_response(&self) -> bool {
        self.has_result || self.has_error
    }
}

/// Whether the proxy can write a text as the id of its own response: JSON, and not null.
pub(crate) fn is_valid_id(text: &str) -> bool {
    text != "null" && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether two ids are the same value. Their texts may be escaped differently.
pub(crate) fn same_id(a: &str, b: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    a == b || ((a.contains('\\') || b.contains('\\')) && parse(a) == parse(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_by_value() {
        assert!(same_id(r#""a""#, r#""a""#) && same_id("7", "7"));
        assert!(same_id(r#""\u0061""#, r#""a""#));
        assert!(!same_id(r#""7""#, "7"));
    }
}
