use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::answer::{self, Body};
use super::message::{LEGACY, MODERN, Message, Refusal, header};
use super::sessions::Sessions;
use super::{Fault, Settings, tools};
use crate::clock::Clock;
use crate::model::Era;

const BODY_MAX: usize = 1024 * 1024;
/// How long a client may take over the body of a request.
const BODY_TIME: Duration = Duration::from_secs(10);
const SLOW: Duration = Duration::from_millis(1500);
/// Nobody waits that long, but nothing here may wait without end.
const HANG: Duration = Duration::from_secs(600);

/// `/mcp`: one HTTP request in, one HTTP response out.
#[derive(Debug)]
pub(super) struct Endpoint {
    settings: Settings,
    clock: Clock,
    sessions: Sessions,
    calls: AtomicU64,
}

impl Endpoint {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        Self { settings, clock, sessions: Sessions::default(), calls: AtomicU64::new(0) }
    }

    /// Answers, however bad the request is.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if self.fault() == Some(Fault::Total) {
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the demo fault: total\n");
        }
        if request.uri().path() != "/mcp" {
            return answer::text(StatusCode::NOT_FOUND, "there is only /mcp\n");
        }
        match *request.method() {
            Method::POST => self.post(request).await,
            Method::GET => {
                self.with_session(request.headers(), |_, end| answer::endless(None, Some(end)))
            }
            Method::DELETE => self.with_session(request.headers(), |id, _| {
                self.sessions.end(id);
                answer::empty(StatusCode::OK)
            }),
            _ => answer::empty(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    /// The fault that stands now.
    fn fault(&self) -> Option<Fault> {
        self.settings.fault.filter(|(_, at)| *at <= self.clock.now()).map(|(fault, _)| fault)
    }

    fn with_session(
        &self,
        headers: &HeaderMap,
        then: impl FnOnce(&str, tokio::sync::watch::Receiver<()>) -> Response<Body>,
    ) -> Response<Body> {
        let modern = header(headers, "mcp-protocol-version")
            .is_some_and(|version| Era::of(version) == Era::Modern);
        let Some(id) = header(headers, "mcp-session-id").filter(|_| !modern) else {
            return answer::empty(StatusCode::METHOD_NOT_ALLOWED);
        };
        match self.sessions.watch(id) {
            Some(end) => then(id, end),
            None => unknown_session(None),
        }
    }

    async fn post(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = timeout(BODY_TIME, Limited::new(body, BODY_MAX).collect()).await;
        let Ok(Ok(body)) = body else {
            return answer::text(StatusCode::PAYLOAD_TOO_LARGE, "at most 1 MiB, within 10 s\n");
        };
        let message = match Message::read(&body.to_bytes()) {
            Ok(message) => message,
            Err(refusal) => return refused(None, &refusal),
        };
        let era = message.era(&head.headers);
        let checked = match era {
            Era::Modern if message.id.is_some() => message.check_modern(&head.headers),
            Era::Modern => Ok(()),
            Era::Legacy => Message::check_legacy(&head.headers),
        };
        if let Err(refusal) = checked {
            return refused(message.id.as_ref(), &refusal);
        }
        if era == Era::Legacy
            && message.method.as_deref() != Some("initialize")
            && let Err(response) = self.in_session(&head.headers, message.id.as_ref())
        {
            return response;
        }
        // Notifications and answers of the client need nothing but a receipt.
        let (Some(id), Some(method)) = (message.id.clone(), message.method.clone()) else {
            return answer::empty(StatusCode::ACCEPTED);
        };
        match (era, method.as_str()) {
            (_, "tools/call") => self.call(era, id, message, &head.headers).await,
            (Era::Legacy, "initialize") => self.initialize(&id, &message),
            (Era::Modern, "subscriptions/listen") => listen(&id, &message),
            _ => match self.ask(era, &method) {
                Ok(result) => {
                    answer::json_body(StatusCode::OK, &answer::result(&id, &complete(era, result)))
                }
                Err(refusal) => refused(Some(&id), &refusal),
            },
        }
    }

    #[expect(clippy::result_large_err, reason = "the error is the response that is sent")]
    fn in_session(&self, headers: &HeaderMap, id: Option<&Value>) -> Result<(), Response<Body>> {
        let Some(session) = header(headers, "mcp-session-id") else {
            let why = "Mcp-Session-Id is missing; send initialize first".to_owned();
            return Err(refused(id, &Refusal::new(400, -32600, why)));
        };
        self.sessions.watch(session).map(|_| ()).ok_or_else(|| unknown_session(id))
    }

    fn initialize(&self, id: &Value, message: &Message) -> Response<Body> {
        let asked = message.text("protocolVersion");
        let [.., newest] = LEGACY;
        let version = LEGACY.into_iter().find(|known| asked == Some(known)).unwrap_or(newest);
        let result = json!({
            "protocolVersion": version,
            "capabilities": capabilities(Era::Legacy),
            "serverInfo": self.server_info(),
        });
        let session = self.sessions.begin().and_then(|id| HeaderValue::try_from(id).ok());
        let Some(session) = session else {
            return refused(Some(id), &Refusal::new(200, -32603, "no randomness".to_owned()));
        };
        let mut response = answer::json_body(StatusCode::OK, &answer::result(id, &result));
        response.headers_mut().insert("mcp-session-id", session);
        response
    }

    /// The methods that are answered at once and need nothing but the era.
    fn ask(&self, era: Era, method: &str) -> Result<Value, Refusal> {
        match (era, method) {
            (Era::Legacy, "ping" | "logging/setLevel") => Ok(json!({})),
            (Era::Legacy, "tools/list") => {
                Ok(json!({ "tools": tools::list(self.settings.without.as_deref()) }))
            }
            (Era::Modern, "tools/list") => Ok(json!({
                "tools": tools::list(self.settings.without.as_deref()), "ttlMs": 0, "cacheScope": "public",
            })),
            (Era::Modern, "server/discover") => Ok(json!({
                "supportedVersions": MODERN,
                "capabilities": capabilities(era),
                "_meta": { "io.modelcontextprotocol/serverInfo": self.server_info() },
                "serverInfo": self.server_info(),
                "ttlMs": 0,
                "cacheScope": "public",
            })),
            // A 404 would tell a legacy client that its session is gone.
            (Era::Legacy, _) => Err(Refusal::new(200, -32601, format!("no method {method}"))),
            (Era::Modern, _) => Err(Refusal::new(404, -32601, format!("no method {method}"))),
        }
    }

    async fn call(
        self: Arc<Self>,
        era: Era,
        id: Value,
        message: Message,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let takes_stream = headers
            .get_all(ACCEPT)
            .iter()
            .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
        let stream = takes_stream && message.text("name").is_some_and(tools::streams);
        let answer = async move {
            match self.try_call(&message).await {
                Ok(result) => answer::result(&id, &complete(era, result)),
                Err(refusal) => answer::error(Some(&id), &refusal),
            }
        };
        if stream {
            answer::one_event(answer)
        } else {
            answer::json_body(StatusCode::OK, &answer.await)
        }
    }

    async fn try_call(&self, message: &Message) -> Result<Value, Refusal> {
        match self.fault() {
            Some(Fault::Errors(percent)) if self.drawn(percent) => {
                return Err(Refusal::new(200, -32603, "the demo fault: errors".to_owned()));
            }
            Some(Fault::Slow) => sleep(SLOW).await,
            Some(Fault::Hang) => sleep(HANG).await,
            Some(Fault::ToolErrors) => return Ok(tools::broken(&self.settings.version)),
            _ => {}
        }
        tools::call(message, &self.settings.version).await
    }

    /// Spreads the share evenly over the calls, without a beat that a client could fall in with.
    fn drawn(&self, percent: f64) -> bool {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let call = self.calls.fetch_add(1, Ordering::Relaxed) % (1 << 32);
        (call as f64 * GOLDEN).fract() < percent / 100.0
    }

    fn server_info(&self) -> Value {
        json!({ "name": "rollbackd-demo-weather", "version": self.settings.version })
    }
}

/// A result as the era wants it.
fn complete(era: Era, mut result: Value) -> Value {
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

/// The stream of a subscription: acknowledged, then open until somebody leaves.
fn listen(id: &Value, message: &Message) -> Response<Body> {
    let wanted = message.params.get("notifications").and_then(|all| all.get("toolsListChanged"));
    let honored = if wanted == Some(&Value::Bool(true)) {
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
    answer::endless(Some(&acknowledged), None)
}

fn unknown_session(id: Option<&Value>) -> Response<Body> {
    refused(id, &Refusal::new(404, -32600, "Session not found".to_owned()))
}

fn refused(id: Option<&Value>, refusal: &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer::json_body(status, &answer::error(id, refusal))
}
