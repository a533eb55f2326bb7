//! JSON-RPC messages of clients, and the rules of both protocol eras.

use hyper::HeaderMap;
use serde_json::Value;

use crate::model::Era;

/// Protocol versions with sessions, oldest first.
pub(crate) const LEGACY_VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
/// Protocol versions without sessions.
pub(crate) const MODERN_VERSIONS: [&str; 1] = ["2026-07-28"];

const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// One JSON-RPC message of a client.
#[derive(Debug)]
pub(crate) struct RpcMessage {
    pub(crate) id: Option<Value>,
    /// `None` in a response of the client.
    pub(crate) method: Option<String>,
    pub(crate) params: Value,
}

/// A JSON-RPC error and the HTTP status that the protocol requires for it.
#[derive(Debug)]
pub(crate) struct RpcError {
    pub(crate) status: u16,
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl RpcMessage {
    /// Parses one message.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, RpcError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| RpcError::new(400, -32700, format!("not JSON: {error}")))?;
        if value.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            let why = "not one JSON-RPC 2.0 message; batches are not supported";
            return Err(RpcError::new(400, -32600, why.to_owned()));
        }
        let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
        let method = value.get("method").and_then(Value::as_str).map(str::to_owned);
        Ok(Self { id, method, params: value.get("params").cloned().unwrap_or(Value::Null) })
    }

    /// The era of the request, from its header or body.
    pub(crate) fn era(&self, headers: &HeaderMap) -> Era {
        let modern = self.meta(META_PROTOCOL_VERSION).is_some()
            || header(headers, "mcp-protocol-version")
                .is_some_and(|version| Era::of(version) == Era::Modern);
        if modern { Era::Modern } else { Era::Legacy }
    }

    /// Checks what a modern request must contain.
    pub(crate) fn check_modern(&self, headers: &HeaderMap) -> Result<(), RpcError> {
        let Some(version) = self.meta(META_PROTOCOL_VERSION).and_then(Value::as_str) else {
            return Err(RpcError::new(400, -32602, format!("_meta lacks {META_PROTOCOL_VERSION}")));
        };
        if header(headers, "mcp-protocol-version") != Some(version) {
            let why = format!("MCP-Protocol-Version is not {version}, as in the body");
            return Err(RpcError::new(400, -32020, why));
        }
        if !MODERN_VERSIONS.contains(&version) {
            return Err(RpcError {
                data: Some(
                    serde_json::json!({ "supported": MODERN_VERSIONS, "requested": version }),
                ),
                ..RpcError::new(400, -32022, format!("protocol version {version} is not supported"))
            });
        }
        if self.meta(META_CLIENT_CAPABILITIES).is_none() {
            return Err(RpcError::new(
                400,
                -32602,
                format!("_meta lacks {META_CLIENT_CAPABILITIES}"),
            ));
        }
        let method = self.method.as_deref();
        // A missing header is accepted: older SDKs do not send it.
        if header(headers, "mcp-method").is_some_and(|named| Some(named) != method) {
            let why = "Mcp-Method is not the method in the body".to_owned();
            return Err(RpcError::new(400, -32020, why));
        }
        Ok(())
    }

    /// Checks what a legacy request after `initialize` must contain, besides its session.
    pub(crate) fn check_legacy(headers: &HeaderMap) -> Result<(), RpcError> {
        match header(headers, "mcp-protocol-version") {
            Some(version) if !LEGACY_VERSIONS.contains(&version) => {
                let why = format!("MCP-Protocol-Version {version} is not supported");
                Err(RpcError::new(400, -32600, why))
            }
            _ => Ok(()),
        }
    }

    /// A parameter of type string.
    pub(crate) fn string_param(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta").and_then(|meta| meta.get(key))
    }
}

impl RpcError {
    pub(crate) fn new(status: u16, code: i64, message: String) -> Self {
        Self { status, code, message, data: None }
    }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
