//! The MCP probe: one request in the era of the server.

use std::time::Duration;

use http::{HeaderValue, Method};
use reqwest::Url;
use serde_json::{Value, json};

use crate::mcp::client::{Client, ClientSession};
use crate::mcp::jsonrpc::{
    HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, SERVER_ERROR,
    UNSUPPORTED_VERSION,
};
use crate::mcp::{Answered, capabilities, methods, session_lost, versions};
use crate::model::Era;
use crate::signal::http_client::{Endpoint, ProbeError};
use crate::signal::rpc_client::{RpcClient, RpcResult};

const CLIENT: Client = Client { name: "rollbackd-probe", version: env!("CARGO_PKG_VERSION") };

/// The longest name of a server that is recorded, in characters.
const NAME_MAX: usize = 200;

/// Probes an MCP server in the era that it speaks.
///
/// In the legacy era it keeps one session open, so that a probe each second does not leave a session
/// each second behind.
#[derive(Debug)]
pub(super) struct McpProbe {
    pub(super) rpc: RpcClient,
    /// The era of the last good response; `None` before the first.
    era: Option<Era>,
    /// The era to try first while none is known. After a timeout it is the other one: a server may
    /// hang on a method that it does not know.
    first_era: Era,
    session: Option<ClientSession>,
    /// The name and version of the server, of the last response that contained them.
    pub(super) server_identity: Option<String>,
}

impl McpProbe {
    pub(super) fn new(endpoint: Endpoint<'_>, timeout: Duration) -> Result<Self, String> {
        Ok(Self::with_client(RpcClient::new(endpoint, timeout)?))
    }

    /// A probe of any URL.
    pub(super) fn with_url(url: Url, timeout: Duration) -> Result<Self, String> {
        Ok(Self::with_client(RpcClient::with_url(url, timeout)?))
    }

    fn with_client(rpc: RpcClient) -> Self {
        Self { rpc, era: None, first_era: Era::Modern, session: None, server_identity: None }
    }

    /// The era of the last good response.
    pub(super) fn era(&self) -> Option<Era> {
        self.era
    }

    /// Calls a tool, in the open session if there is one. A session that the server lost is
    /// forgotten, and the next probe opens another.
    pub(super) async fn call_tool(&mut self, params: &Value) -> Result<Value, ProbeError> {
        let Some(session) = &self.session else {
            return self.call_modern(methods::TOOLS_CALL, params.clone()).await;
        };
        let called = self.rpc.call(|id| session.request(id, methods::TOOLS_CALL, params)).await;
        if called.as_ref().is_err_and(ProbeError::is_session_lost) {
            self.session = None;
        }
        called.map(|it| it.result)
    }

    /// The id of the open session.
    pub(super) fn session_id(&self) -> Option<&HeaderValue> {
        self.session.as_ref()?.id.as_ref()
    }

    pub(super) async fn probe(&mut self) -> Result<(), ProbeError> {
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
                    // The error that is not due to the wrong era is reported.
                    Err(second) if known.is_none() && fault.may_be_wrong_era() => Err(second),
                    Err(_) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        match outcome {
            Ok(era) => {
                self.era = Some(era);
                Ok(())
            }
            Err(fault) => {
                if !matches!(fault, ProbeError::TimedOut) {
                    self.first_era = first;
                }
                Err(fault)
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
        let found = self.call_modern(methods::SERVER_DISCOVER, json!({})).await?;
        if supported_versions(&found).next().is_none() {
            return Err(ProbeError::Other(
                "the result of server/discover has no supportedVersions".into(),
            ));
        }
        Ok(found)
    }

    pub(super) async fn call_modern(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<Value, ProbeError> {
        self.rpc.call(|id| CLIENT.modern(id, method, params)).await.map(|it| it.result)
    }

    /// One request in the open session. A session that the server lost is opened again, once.
    async fn probe_legacy(&mut self) -> Result<(), ProbeError> {
        if self.session.is_some() {
            match self.probe_session().await {
                Err(fault) if fault.is_session_lost() => self.session = None,
                answered => return answered,
            }
        }
        let session = self.open_session(versions::LATEST_LEGACY).await?;
        self.server_identity =
            server_identity(&session.initialize_result).or(self.server_identity.take());
        self.session = Some(session);
        self.probe_session().await
    }

    async fn probe_session(&mut self) -> Result<(), ProbeError> {
        let Some(session) = &self.session else { return Ok(()) };
        // A list of tools takes the path of a real call; a server may answer ping by itself.
        let lists = has_capability(&session.initialize_result, "tools");
        let method = if lists { methods::TOOLS_LIST } else { methods::PING };
        self.rpc.call(|id| session.request(id, method, &json!({}))).await.map(drop)
    }

    /// Opens a session: `initialize`, then `notifications/initialized`.
    pub(super) async fn open_session(
        &mut self,
        version: &str,
    ) -> Result<ClientSession, ProbeError> {
        let RpcResult { result, headers } =
            self.rpc.call(|id| CLIENT.initialize(id, version)).await?;
        let session = ClientSession::opened(&headers, result).ok_or_else(|| {
            ProbeError::Other("the result of initialize has no protocolVersion".into())
        })?;
        match self.rpc.notify(session.initialized()).await {
            Ok(()) => Ok(session),
            Err(fault) => {
                self.close_session(&session).await;
                Err(fault)
            }
        }
    }

    /// Ends a session. A server may refuse to end it.
    pub(super) async fn close_session(&mut self, session: &ClientSession) {
        if let Some(message) = session.close() {
            let _ = self.rpc.notify(message).await;
        }
    }
}

impl ProbeError {
    /// The server did not respond at all: another request would not help.
    pub(super) fn is_no_response(&self) -> bool {
        matches!(self, Self::Refused | Self::TimedOut | Self::OwnShortage(_))
    }

    /// A server may respond like this to a request of the other era.
    fn may_be_wrong_era(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 400 | 404 | 405 | 406 | 415 | 422),
            Self::RpcError { code, .. } => matches!(
                *code,
                METHOD_NOT_FOUND
                    | INVALID_PARAMS
                    | INVALID_REQUEST
                    | SERVER_ERROR
                    | HEADER_MISMATCH
                    | UNSUPPORTED_VERSION
            ),
            Self::Refused | Self::TimedOut | Self::OwnShortage(_) | Self::Other(_) => false,
        }
    }

    /// The server no longer knows the session of the request.
    fn is_session_lost(&self) -> bool {
        let Self::Status { status, content } = self else { return false };
        let (method, in_session) = (&Method::POST, true);
        session_lost(&Answered { method, in_session, status: *status, content })
    }
}

/// The versions in the result of `server/discover`.
pub(super) fn supported_versions(found: &Value) -> impl Iterator<Item = &str> {
    let listed = found.get("supportedVersions").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str)
}

/// The name and version of the server in a result of `initialize` or `server/discover`.
pub(super) fn server_identity(answer: &Value) -> Option<String> {
    let meta = answer.get("_meta").and_then(|meta| meta.get(versions::META_SERVER_INFO));
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

/// Whether a result of `initialize` or `server/discover` offers a capability.
pub(super) fn has_capability(answer: &Value, path: &str) -> bool {
    answer.get("capabilities").is_some_and(|all| capabilities::is_offered(all, path))
}
