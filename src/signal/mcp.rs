use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::exchange::Fault;
use super::rpc::{Answer, Wire};
use crate::config::Address;
use crate::mcp::{Answered, session_lost};
use crate::model::{Era, Reply};

/// What a modern request says it speaks.
const MODERN: &str = "2026-07-28";

/// What a legacy client offers first.
pub(super) const LEGACY: &str = "2025-11-25";

/// Characters of a server's name that are kept.
const NAME_MAX: usize = 200;

/// Asks an MCP server in the era that it speaks.
///
/// In the legacy era one session stays open, so that a probe each second does not leave a session
/// each second behind.
#[derive(Debug)]
pub(super) struct Mcp {
    pub(super) wire: Wire,
    /// What it spoke last; `None` before the first good answer.
    era: Option<Era>,
    /// What is tried first while nothing is known. A question that is not answered in time leaves
    /// the other era here: a server may hang on words that it does not know.
    first: Era,
    session: Option<Session>,
    /// What the server called itself in the last answer that said so.
    pub(super) server: Option<String>,
}

/// A legacy session on the server.
#[derive(Debug)]
pub(super) struct Session {
    /// None where the server keeps no sessions.
    id: Option<HeaderValue>,
    /// What it negotiated.
    pub(super) protocol: String,
    /// The whole answer to initialize.
    pub(super) welcome: Value,
}

impl Mcp {
    pub(super) fn new(address: &Address, path: &str, timeout: Duration) -> Result<Self, String> {
        let wire = Wire::new(address, path, timeout)?;
        Ok(Self { wire, era: None, first: Era::Modern, session: None, server: None })
    }

    pub(super) async fn ask(&mut self) -> Reply {
        let known = self.era;
        let first = known.unwrap_or(self.first);
        self.first = other(first);
        let answered = match self.ask_in(first).await {
            Ok(()) => Ok(first),
            Err(fault) if known.is_none() && !fault.is_silence() || fault.is_misunderstanding() => {
                match self.ask_in(other(first)).await {
                    Ok(()) => Ok(other(first)),
                    // The fault that is no mere misunderstanding says more.
                    Err(second) if known.is_none() && fault.is_misunderstanding() => Err(second),
                    Err(_) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        match answered {
            Ok(era) => {
                self.era = Some(era);
                Reply::Ok
            }
            Err(fault) => {
                if !matches!(fault, Fault::Late) {
                    self.first = first;
                }
                fault.reply()
            }
        }
    }

    pub(super) async fn close(&mut self) {
        if let Some(session) = self.session.take() {
            self.leave(&session).await;
        }
    }

    async fn ask_in(&mut self, era: Era) -> Result<(), Fault> {
        match era {
            Era::Modern => {
                let found = self.discover().await?;
                self.server = server(&found).or(self.server.take());
                Ok(())
            }
            Era::Legacy => self.ask_legacy().await,
        }
    }

    pub(super) async fn discover(&mut self) -> Result<Value, Fault> {
        let found = self.call_modern("server/discover", json!({})).await?;
        if versions(&found).next().is_none() {
            return Err(Fault::Wrong("server/discover names no supportedVersions".into()));
        }
        Ok(found)
    }

    pub(super) async fn call_modern(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<Value, Fault> {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": client_info(),
        });
        let mut params = params;
        if let Some(fields) = params.as_object_mut() {
            fields.insert("_meta".to_owned(), meta);
        }
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
        headers.extend(HeaderValue::from_str(method).ok().map(|name| (METHOD, name)));
        self.wire.call(method, params, headers).await.map(|answer| answer.result)
    }

    /// One question on the open session; a session that the server lost is opened again, once.
    async fn ask_legacy(&mut self) -> Result<(), Fault> {
        if self.session.is_some() {
            match self.ask_session().await {
                Err(fault) if fault.is_lost_session() => self.session = None,
                answered => return answered,
            }
        }
        let session = self.enter(LEGACY).await?;
        self.server = server(&session.welcome).or(self.server.take());
        self.session = Some(session);
        self.ask_session().await
    }

    async fn ask_session(&mut self) -> Result<(), Fault> {
        let Some(session) = &self.session else { return Ok(()) };
        let headers = session.headers();
        // Listing the tools takes the same path as a client's call; ping may be answered by a shell.
        let lists = session.welcome.pointer("/capabilities/tools").is_some();
        let method = if lists { "tools/list" } else { "ping" };
        self.wire.call(method, json!({}), headers).await.map(drop)
    }

    /// Opens a session: initialize, then the word that it is done.
    pub(super) async fn enter(&mut self, offer: &str) -> Result<Session, Fault> {
        let params = json!({
            "protocolVersion": offer, "capabilities": {}, "clientInfo": client_info(),
        });
        let Answer { result: welcome, session: id } =
            self.wire.call("initialize", params, HeaderMap::new()).await?;
        let Some(protocol) = welcome.get("protocolVersion").and_then(Value::as_str) else {
            return Err(Fault::Wrong("the answer to initialize has no protocolVersion".into()));
        };
        let session = Session { id, protocol: protocol.to_owned(), welcome };
        match self.wire.tell("notifications/initialized", session.headers()).await {
            Ok(()) => Ok(session),
            Err(fault) => {
                self.leave(&session).await;
                Err(fault)
            }
        }
    }

    pub(super) async fn leave(&mut self, session: &Session) {
        if session.id.is_some() {
            self.wire.delete(session.headers()).await;
        }
    }
}

impl Session {
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.extend(self.id.clone().map(|id| (SESSION, id)));
        headers.extend(HeaderValue::from_str(&self.protocol).ok().map(|name| (PROTOCOL, name)));
        headers
    }
}

const METHOD: http::HeaderName = http::HeaderName::from_static("mcp-method");
const PROTOCOL: http::HeaderName = http::HeaderName::from_static("mcp-protocol-version");
const SESSION: http::HeaderName = http::HeaderName::from_static("mcp-session-id");

impl Fault {
    /// Nobody spoke at all: asking in other words makes no sense.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Refused | Self::Late)
    }

    /// Such as a server gives to the words of the other era.
    fn is_misunderstanding(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status, 400 | 404 | 405 | 406 | 415 | 422),
            // Method, version, header or state that it does not know.
            Self::Error { code, .. } => {
                matches!(code, -32601 | -32602 | -32600 | -32000 | -32020 | -32022)
            }
            Self::Refused | Self::Late | Self::Wrong(_) => false,
        }
    }

    /// The server no longer knows the session that it was asked in.
    fn is_lost_session(&self) -> bool {
        let Self::Status { status, said } = self else { return false };
        let (method, in_session) = (&Method::POST, true);
        session_lost(&Answered { method, in_session, status: *status, said })
    }
}

/// The versions that an answer to server/discover names.
pub(super) fn versions(found: &Value) -> impl Iterator<Item = &str> {
    let listed = found.get("supportedVersions").and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str)
}

/// Name and version that the server gives itself in an answer to initialize or server/discover.
pub(super) fn server(answer: &Value) -> Option<String> {
    let meta = answer.pointer("/_meta/io.modelcontextprotocol~1serverInfo");
    let info = answer.get("serverInfo").or(meta)?;
    let word = |name| info.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = format!("{} {}", word("name"), word("version"));
    Some(name.trim().chars().take(NAME_MAX).collect())
}

fn other(era: Era) -> Era {
    match era {
        Era::Legacy => Era::Modern,
        Era::Modern => Era::Legacy,
    }
}

fn client_info() -> Value {
    json!({"name": "rollbackd-probe", "version": env!("CARGO_PKG_VERSION")})
}
