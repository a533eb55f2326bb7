//! `/mcp`: one HTTP request in, one HTTP response out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::demo::fault::Fault;
use crate::demo::server::message::{
    LEGACY_VERSIONS, MODERN_VERSIONS, RpcError, RpcMessage, header,
};
use crate::demo::server::response::Body;
use crate::demo::server::sessions::SessionStore;
use crate::demo::server::settings::ServerSettings;
use crate::demo::server::{response, tools};
use crate::model::Era;

const BODY_MAX: usize = 1024 * 1024;
/// Longest time for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const SLOW_DELAY: Duration = Duration::from_millis(1500);
/// Longer than any client waits, but not without end.
const HANG_DELAY: Duration = Duration::from_secs(600);

/// The endpoint of one server.
#[derive(Debug)]
pub(crate) struct McpEndpoint {
    settings: ServerSettings,
    clock: Clock,
    sessions: SessionStore,
    calls: AtomicU64,
}

impl McpEndpoint {
    pub(crate) fn new(settings: ServerSettings, clock: Clock) -> Self {
        Self { settings, clock, sessions: SessionStore::default(), calls: AtomicU64::new(0) }
    }

    /// Responds to any request, also to a malformed one.
    pub(crate) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if self.active_fault() == Some(Fault::Total) {
            return response::plain_text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the demo fault: total\n",
            );
        }
        if request.uri().path() != "/mcp" {
            return response::plain_text(StatusCode::NOT_FOUND, "only /mcp exists\n");
        }
        match *request.method() {
            Method::POST => self.post(request).await,
            Method::GET => self
                .with_session(request.headers(), |_, end| response::open_stream(None, Some(end))),
            Method::DELETE => self.with_session(request.headers(), |id, _| {
                self.sessions.remove(id);
                response::empty_body(StatusCode::OK)
            }),
            _ => response::empty_body(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    /// The fault that is active now.
    fn active_fault(&self) -> Option<Fault> {
        self.settings.fault.filter(|it| it.at <= self.clock.now()).map(|it| it.fault)
    }

    fn with_session(
        &self,
        headers: &HeaderMap,
        respond: impl FnOnce(&str, tokio::sync::watch::Receiver<()>) -> Response<Body>,
    ) -> Response<Body> {
        let modern = header(headers, "mcp-protocol-version")
            .is_some_and(|version| Era::of(version) == Era::Modern);
        let Some(id) = header(headers, "mcp-session-id").filter(|_| !modern) else {
            return response::empty_body(StatusCode::METHOD_NOT_ALLOWED);
        };
        match self.sessions.subscribe(id) {
            Some(end) => respond(id, end),
            None => session_not_found(None),
        }
    }

    async fn post(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX).collect()).await;
        let Ok(Ok(body)) = body else {
            return response::plain_text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "at most 1 MiB, within 10 s\n",
            );
        };
        let message = match RpcMessage::parse(&body.to_bytes()) {
            Ok(message) => message,
            Err(refusal) => return error_response(None, &refusal),
        };
        let era = message.era(&head.headers);
        let checked = match era {
            Era::Modern if message.id.is_some() => message.check_modern(&head.headers),
            Era::Modern => Ok(()),
            Era::Legacy => RpcMessage::check_legacy(&head.headers),
        };
        if let Err(refusal) = checked {
            return error_response(message.id.as_ref(), &refusal);
        }
        if era == Era::Legacy
            && message.method.as_deref() != Some("initialize")
            && let Err(response) = self.require_session(&head.headers, message.id.as_ref())
        {
            return response;
        }
        // Notifications and responses of the client only get a receipt.
        let (Some(id), Some(method)) = (message.id.clone(), message.method.clone()) else {
            return response::empty_body(StatusCode::ACCEPTED);
        };
        match (era, method.as_str()) {
            (_, "tools/call") => self.handle_call(era, id, message, &head.headers).await,
            (Era::Legacy, "initialize") => self.initialize(&id, &message),
            (Era::Modern, "subscriptions/listen") => subscription_stream(&id, &message),
            _ => match self.simple_result(era, &method) {
                Ok(result) => response::json_body(
                    StatusCode::OK,
                    &response::rpc_result(&id, &with_result_type(era, result)),
                ),
                Err(refusal) => error_response(Some(&id), &refusal),
            },
        }
    }

    #[expect(clippy::result_large_err, reason = "the error is the response that is sent")]
    fn require_session(
        &self,
        headers: &HeaderMap,
        id: Option<&Value>,
    ) -> Result<(), Response<Body>> {
        let Some(session) = header(headers, "mcp-session-id") else {
            let why = "Mcp-Session-Id is missing; send initialize first".to_owned();
            return Err(error_response(id, &RpcError::new(400, -32600, why)));
        };
        self.sessions.subscribe(session).map(|_| ()).ok_or_else(|| session_not_found(id))
    }

    fn initialize(&self, id: &Value, message: &RpcMessage) -> Response<Body> {
        let requested = message.string_param("protocolVersion");
        let [.., newest] = LEGACY_VERSIONS;
        let version =
            LEGACY_VERSIONS.into_iter().find(|known| requested == Some(known)).unwrap_or(newest);
        let result = json!({
            "protocolVersion": version,
            "capabilities": capabilities(Era::Legacy),
            "serverInfo": self.server_info(),
        });
        let session = self.sessions.create().and_then(|id| HeaderValue::try_from(id).ok());
        let Some(session) = session else {
            return error_response(
                Some(id),
                &RpcError::new(200, -32603, "no randomness".to_owned()),
            );
        };
        let mut response = response::json_body(StatusCode::OK, &response::rpc_result(id, &result));
        response.headers_mut().insert("mcp-session-id", session);
        response
    }

    /// The result of a method that depends only on the era.
    fn simple_result(&self, era: Era, method: &str) -> Result<Value, RpcError> {
        match (era, method) {
            (Era::Legacy, "ping" | "logging/setLevel") => Ok(json!({})),
            (Era::Legacy, "tools/list") => {
                Ok(json!({ "tools": tools::list_tools(self.settings.hidden_tool.as_deref()) }))
            }
            (Era::Modern, "tools/list") => Ok(json!({
                "tools": tools::list_tools(self.settings.hidden_tool.as_deref()), "ttlMs": 0, "cacheScope": "public",
            })),
            (Era::Modern, "server/discover") => Ok(json!({
                "supportedVersions": MODERN_VERSIONS,
                "capabilities": capabilities(era),
                "_meta": { "io.modelcontextprotocol/serverInfo": self.server_info() },
                "serverInfo": self.server_info(),
                "ttlMs": 0,
                "cacheScope": "public",
            })),
            // A legacy client takes 404 for a lost session.
            (Era::Legacy, _) => Err(RpcError::new(200, -32601, format!("no method {method}"))),
            (Era::Modern, _) => Err(RpcError::new(404, -32601, format!("no method {method}"))),
        }
    }

    async fn handle_call(
        self: Arc<Self>,
        era: Era,
        id: Value,
        message: RpcMessage,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let takes_stream = headers
            .get_all(ACCEPT)
            .iter()
            .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
        let stream = takes_stream && message.string_param("name").is_some_and(tools::is_streamed);
        let answer = async move {
            match self.call_tool(&message).await {
                Ok(result) => response::rpc_result(&id, &with_result_type(era, result)),
                Err(refusal) => response::rpc_error(Some(&id), &refusal),
            }
        };
        if stream {
            response::single_event_stream(answer)
        } else {
            response::json_body(StatusCode::OK, &answer.await)
        }
    }

    async fn call_tool(&self, message: &RpcMessage) -> Result<Value, RpcError> {
        if self.settings.outage_file.as_ref().is_some_and(|file| file.exists()) {
            return Ok(tools::failed_call(&self.settings.version));
        }
        match self.active_fault() {
            Some(Fault::Errors(percent)) if self.is_faulty(percent) => {
                return Err(RpcError::new(200, -32603, "the demo fault: errors".to_owned()));
            }
            Some(Fault::Slow) => sleep(SLOW_DELAY).await,
            Some(Fault::Hang) => sleep(HANG_DELAY).await,
            Some(Fault::ToolErrors) => return Ok(tools::failed_call(&self.settings.version)),
            Some(Fault::OneTool) if message.string_param("name") == Some(tools::WEATHER) => {
                return Ok(tools::failed_call(&self.settings.version));
            }
            _ => {}
        }
        tools::call_tool(message, &self.settings.version).await
    }

    /// Spreads the share evenly over the calls, without a period that could match a client's.
    fn is_faulty(&self, percent: f64) -> bool {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let call = self.calls.fetch_add(1, Ordering::Relaxed) % (1 << 32);
        (call as f64 * GOLDEN).fract() < percent / 100.0
    }

    fn server_info(&self) -> Value {
        json!({ "name": "rollbackd-demo-weather", "version": self.settings.version })
    }
}

/// Adds the fields that the era requires.
fn with_result_type(era: Era, mut result: Value) -> Value {
    if let (Era::Modern, Some(fields)) = (era, result.as_object_mut()) {
        fields.insert("resultType".to_owned(), "complete".into());
    }
    result
}

fn capabilities(era: Era) -> Value {
    match era {
        Era::Legacy => json!({ "tools": { "listChanged": true }, "logging": {} }),
        Era::Modern => json!({ "tools": { "listChanged": true } }),
    }
}

/// The stream of a subscription: an acknowledgement, then open until one side closes it.
fn subscription_stream(id: &Value, message: &RpcMessage) -> Response<Body> {
    let requested = message.params.get("notifications").and_then(|all| all.get("toolsListChanged"));
    let honored = if requested == Some(&Value::Bool(true)) {
        json!({ "toolsListChanged": true })
    } else {
        json!({})
    };
    let acknowledged = json!({
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {
            "_meta": { "io.modelcontextprotocol/subscriptionId": id },
            "notifications": honored,
        },
    });
    response::open_stream(Some(&acknowledged), None)
}

fn session_not_found(id: Option<&Value>) -> Response<Body> {
    error_response(id, &RpcError::new(404, -32600, "Session not found".to_owned()))
}

fn error_response(id: Option<&Value>, error: &RpcError) -> Response<Body> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response::json_body(status, &response::rpc_error(id, error))
}
