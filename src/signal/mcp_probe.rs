use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use crate::config::Address;
use crate::mcp::{Answered, session_lost};
use crate::model::{Era, ProbeResult};
use crate::signal::http_client::ProbeError;
use crate::signal::rpc_client::{RpcClient, RpcResult};

/// What a modern request says it speaks.
const MODERN_VERSION: &str = "2026-07-28";

/// What a legacy client offers first.
pub(super) const LEGACY_VERSION: &str = "2025-11-25";

/// Characters of a server's name that are kept.
const NAME_MAX: usize = 200;

/// Asks an MCP server in the era that it speaks.
///
/// In the legacy era one session stays open, so that a probe each second does not leave a session
/// each second behind.
#[derive(Debug)]
pub(super) struct McpProbe {
    pub(super) rpc: RpcClient,
    /// What it spoke last; `None` before the first good answer.
    era: Option<Era>,
    /// What is tried first while nothing is known. A question that is not answered in time leaves
    /// the other era here: a server may hang on words that it does not know.
    first_era: Era,
    session: Option<ProbeSession>,
    /// What the server called itself in the last answer that said so.
    pub(super) server_identity: Option<String>,
}

/// A legacy session on the server.
#[derive(Debug)]
pub(super) struct ProbeSession {
    /// None where the server keeps no sessions.
    id: Option<HeaderValue>,
    /// What it negotiated.
    pub(super) protocol: String,
    /// The whole answer to initialize.
    pub(super) initialize_result: Value,
}

impl McpProbe {
    pub(super) fn new(address: &Address, path: &str, timeout: Duration) -> Result<Self, String> {
        let rpc = RpcClient::new(address, path, timeout)?;
        Ok(Self { rpc, era: None, first_era: Era::Modern, session: None, server_identity: None })
    }

    pub(super) async fn probe(&mut self) -> ProbeResult {
        let known = self.era;
        let first = known.unwrap_or(self.first_era);
        self.first_era = other_era(first);
        let outcome = match self.probe_in(first).await {
            Ok(()) => Ok(first),
            Err(fault)
                if known.is_none() && !fault.is_no_response() || fault.may_be_wrong_era() =>
            {
                match self.probe_in(other_era(first)).await {
                    Ok(()) => Ok(other_era(first)),
                    // The fault that is no mere misunderstanding says more.
                    Err(second) if known.is_none() && fault.may_be_wrong_era() => Err(second),
                    Err(_) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(era) => {
                self.era = Some(era);
                ProbeResult::Ok
            }
            Err(fault) => {
                if !matches!(fault, ProbeError::TimedOut) {
                    self.first_era = first;
                }
                fault.to_reply()
            }
        }
    }

    pub(super) async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.close_session(&session).await;
        }
    }

    async fn probe_in(&mut self, era: Era) -> Result<(), ProbeError> {
        match era {
            Era::Modern => {
                let found = self.server_discover().await?;
                self.server_identity = server_identity(&found).or(self.server_identity.take());
                Ok(())
            }
            Era::Legacy => self.probe_legacy().await,
        }
    }

    pub(super) async fn server_discover(&mut self) -> Result<Value, ProbeError> {
        let found = self.call_modern("server/discover", json!({})).await?;
        if supported_versions(&found).next().is_none() {
            return Err(ProbeError::Other("server/discover names no supportedVersions".into()));
        }
        Ok(found)
    }

    pub(super) async fn call_modern(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<Value, ProbeError> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client_info(),
        });
        let mut params = params;
        if let Some(fields) = params.as_object_mut() {
            fields.insert("_meta".to_owned(), meta);
        }
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN_VERSION));
        headers.extend(HeaderValue::from_str(method).ok().map(|name| (METHOD_HEADER, name)));
        self.rpc.call(method, params, headers).await.map(|answer| answer.result)
    }

    /// One question on the open session; a session that the server lost is opened again, once.
    async fn probe_legacy(&mut self) -> Result<(), ProbeError> {
        if self.session.is_some() {
            match self.probe_session().await {
                Err(fault) if fault.is_session_lost() => self.session = None,
                answered => return answered,
            }
        }
        let session = self.open_session(LEGACY_VERSION).await?;
        self.server_identity =
            server_identity(&session.initialize_result).or(self.server_identity.take());
        self.session = Some(session);
        self.probe_session().await
    }

    async fn probe_session(&mut self) -> Result<(), ProbeError> {
        let Some(session) = &self.session else { return Ok(()) };
        let headers = session.headers();
        // Listing the tools takes the same path as a client's call; ping may be answered by a shell.
        let lists = session.initialize_result.pointer("/capabilities/tools").is_some();
        let method = if lists { "tools/list" } else { "ping" };
        self.rpc.call(method, json!({}), headers).await.map(drop)
    }

    /// Opens a session: initialize, then the word that it is done.
    pub(super) async fn open_session(&mut self, version: &str) -> Result<ProbeSession, ProbeError> {
        let params = json!({
            "protocolVersion": version, "capabilities": {}, "clientInfo": client_info(),
        });
        let RpcResult { result: welcome, session_id: id } =
            self.rpc.call("initialize", params, HeaderMap::new()).await?;
        let Some(protocol) = welcome.get("protocolVersion").and_then(Value::as_str) else {
            return Err(ProbeError::Other(
                "the answer to initialize has no protocolVersion".into(),
            ));
        };
        let session =
            ProbeSession { id, protocol: protocol.to_owned(), initialize_result: welcome };
        match self.rpc.notify("notifications/initialized", session.headers()).await {
            Ok(()) => Ok(session),
            Err(fault) => {
                self.close_session(&session).await;
                Err(fault)
            }
        }
    }

    pub(super) async fn close_session(&mut self, session: &ProbeSession) {
        if session.id.is_some() {
            self.rpc.delete_session(session.headers()).await;
        }
    }
}

impl ProbeSession {
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(self.id.clone().map(|id| (SESSION_ID_HEADER, id)));
        headers.extend(
            HeaderValue::from_str(&self.protocol).ok().map(|name| (PROTOCOL_VERSION_HEADER, name)),
        );
        headers
    }
}

const METHOD_HEADER: http::HeaderName = http::HeaderName::from_static("mcp-method");
const PROTOCOL_VERSION_HEADER: http::HeaderName =
    http::HeaderName::from_static("mcp-protocol-version");
const SESSION_ID_HEADER: http::HeaderName = http::HeaderName::from_static("mcp-session-id");

impl ProbeError {
    /// Nobody spoke at all: asking in other words makes no sense.
    pub(super) fn is_no_response(&self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut)
    }

    /// Such as a server gives to the words of the other era.
    fn may_be_wrong_era(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 400 | 404 | 405 | 406 | 415 | 422),
            // Method, version, header or state that it does not know.
            Self::RpcError { code, .. } => {
                matches!(code, -32601 | -32602 | -32600 | -32000 | -32020 | -32022)
            }
            Self::Refused | Self::TimedOut | Self::Other(_) => false,
        }
    }

    /// The server no longer knows the session that it was asked in.
    fn is_session_lost(&self) -> bool {
        let Self::Status { status, said } = self else { return false };
        let (method, in_session) = (&Method::POST, true);
        session_lost(&Answered { method, in_session, status: *status, said })
    }
}

/// The versions that an answer to server/discover names.
pub(super) fn supported_versions(found: &Value) -> impl Iterator<Item = &str> {
    let listed = found.get("supportedVersions").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str)
}

/// Name and version that the server gives itself in an answer to initialize or server/discover.
pub(super) fn server_identity(answer: &Value) -> Option<String> {
    let meta = answer.pointer("/_meta/io.modelcontextprotocol~1serverInfo");
    let info = answer.get("serverInfo").or(meta)?;
    let word = |name| info.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{} {}", word("name"), word("version"));
    Some(name.trim().chars().take(NAME_MAX).collect())
}

fn other_era(era: Era) -> Era {
    match era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    }
}

fn client_info() -> Value {
    json!({"name": "rollbackd-probe", "version": env!("CARGO_PKG_VERSION")})
}
