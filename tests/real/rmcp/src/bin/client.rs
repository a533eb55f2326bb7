//! MCP clients that a test drives: client ERA URL
//!
//! The lines that it reads and writes are those of client.mjs.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use futures::FutureExt;
use futures::stream::BoxStream;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientJsonRpcMessage, ClientRequest,
    ProgressNotificationParam, ProtocolVersion, ResourceUpdatedNotificationParam, ServerResult,
    SubscribeRequestParams, SubscriptionFilter,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RunningService, Subscription};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient, ServiceError};
use serde_json::{Value, json};
use sse_stream::Sse;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a client was told.
#[derive(Default)]
struct ReceivedMessages {
    changes: AtomicU64,
    updates: AtomicU64,
    progress: Notify,
    /// A subscription that ended, which it should not.
    ended: AtomicU64,
}

#[derive(Clone)]
struct MessageRecorder(Arc<ReceivedMessages>);

impl ClientHandler for MessageRecorder {
    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.progress.notify_one();
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    async fn on_resource_updated(
        &self,
        _: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.0.updates.fetch_add(1, Ordering::Relaxed);
    }
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Failed = StreamableHttpError<reqwest::Error>;

/// The usual HTTP client, which also tells what the SDK does not: the session's id as it is sent,
/// and whether somebody listens.
#[derive(Clone, Default)]
struct Spy {
    http: reqwest::Client,
    session: Arc<Mutex<Option<Arc<str>>>>,
    listens: Arc<Notify>,
}

impl StreamableHttpClient for Spy {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failed> {
        self.session.lock().unwrap().clone_from(&session);
        self.http.post_message(uri, message, session, auth, headers).await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failed> {
        self.http.delete_session(uri, session, auth, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failed> {
        let stream = self.http.get_stream(uri, session, last, auth, headers).await?;
        self.listens.notify_one();
        Ok(stream)
    }
}

struct McpSession {
    client: RunningService<RoleClient, MessageRecorder>,
    spy: Spy,
    received: Arc<ReceivedMessages>,
    pending: Option<JoinHandle<Result<CallToolResult, ServiceError>>>,
}

impl McpSession {
    async fn connect(modern: bool, url: &str) -> Result<Self, Value> {
        let (spy, received) = (Spy::default(), Arc::<ReceivedMessages>::default());
        let config = StreamableHttpClientTransportConfig::with_uri(url);
        let transport = StreamableHttpClientTransport::with_client(spy.clone(), config);
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let mode = if modern {
            ClientLifecycleMode::Discover { preferred_versions }
        } else {
            ClientLifecycleMode::Initialize
        };
        let client = MessageRecorder(received.clone()).serve_with_lifecycle(transport, mode).await;
        let client = client.map_err(|error| json!({"error": error.to_string()}))?;
        if modern {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let subscription = client.listen(filter).await.map_err(|error| told(&error))?;
            tokio::spawn(listen(subscription, received.clone()));
        } else {
            spy.listens.notified().await;
        }
        Ok(Self { client, spy, received, pending: None })
    }

    fn id(&self) -> Value {
        self.spy.session.lock().unwrap().as_deref().into()
    }

    #[expect(deprecated, reason = "clients subscribe, and the sessions with them move")]
    async fn answer(&mut self, verb: &str, rest: &Value) -> Result<Value, Value> {
        let text = |name: &str| rest[name].as_str().unwrap().to_owned();
        let failed = |error| told(&error);
        if self.received.ended.load(Ordering::Relaxed) != 0 {
            return Err(json!({"error": "the subscription ended"}));
        }
        match verb {
            "id" => Ok(self.id()),
            "news" => Ok(soon(&self.received.changes, 5).await),
            "updated" => Ok(soon(&self.received.updates, 20).await),
            "tools" => {
                let tools = self.client.list_all_tools().await.map_err(failed)?;
                Ok(tools.iter().map(|tool| Value::from(tool.name.as_ref())).collect())
            }
            "subscribe" => {
                let uri = SubscribeRequestParams::new(text("uri"));
                self.client.subscribe(uri).await.map_err(failed)?;
                Ok("subscribed".into())
            }
            "call" | "begin" => {
                let input = rest["input"].as_object().unwrap().clone();
                // An earlier call made progress, too.
                let _ = self.received.progress.notified().now_or_never();
                self.begin(CallToolRequestParams::new(text("tool")).with_arguments(input));
                if verb == "call" {
                    return self.finish().await;
                }
                self.received.progress.notified().await;
                Ok("begun".into())
            }
            "finish" => self.finish().await,
            _ => Err(json!({"error": format!("{verb} is not known")})),
        }
    }

    fn begin(&mut self, call: CallToolRequestParams) {
        let peer = self.client.peer().clone();
        self.pending = Some(tokio::spawn(async move {
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(call));
            let options = PeerRequestOptions::no_options();
            let handle = peer.send_cancellable_request(request, options).await?;
            match handle.await_response().await? {
                ServerResult::CallToolResult(result) => Ok(result),
                _ => Err(ServiceError::UnexpectedResponse),
            }
        }));
    }

    async fn finish(&mut self) -> Result<Value, Value> {
        let result = self.pending.take().unwrap().await.unwrap().map_err(|error| told(&error))?;
        let result = json!(result);
        match result["isError"] == true {
            true => Err(json!({"error": format!("the tool failed: {result}")})),
            false => Ok(result["content"][0]["text"].clone()),
        }
    }
}

async fn listen(mut subscription: Subscription, received: Arc<ReceivedMessages>) {
    while let Ok(Some(_)) = subscription.next().await {
        received.changes.fetch_add(1, Ordering::Relaxed);
    }
    received.ended.fetch_add(1, Ordering::Relaxed);
}

/// How often it was received; waits some seconds for the first time.
async fn soon(received: &AtomicU64, seconds: u32) -> Value {
    for _ in 0..10 * seconds {
        if received.load(Ordering::Relaxed) != 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    received.load(Ordering::Relaxed).into()
}

fn told(error: &ServiceError) -> Value {
    match error {
        ServiceError::McpError(told) => {
            json!({"error": told.message, "code": told.code, "data": told.data})
        }
        other => json!({"error": other.to_string()}),
    }
}

#[tokio::main]
async fn main() {
    let [_, era, url] = &env::args().collect::<Vec<_>>()[..] else { panic!("client ERA URL") };
    let modern = era == "modern";
    let mut sessions = BTreeMap::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let question: Value = serde_json::from_str(&line).unwrap();
        let (who, verb) = (question["who"].to_string(), question["do"].as_str().unwrap());
        let answer = if verb == "connect" {
            McpSession::connect(modern, url).await.map(|session| {
                let stream = (!modern).then_some(200);
                let welcome = json!({"session": session.id(), "stream": stream});
                sessions.insert(who, session);
                welcome
            })
        } else if verb == "close" {
            sessions.remove(&who).unwrap().client.cancel().await.unwrap();
            Ok("closed".into())
        } else {
            sessions.get_mut(&who).unwrap().answer(verb, &question).await
        };
        println!("{}", answer.map_or_else(|error| error, |ok| json!({"ok": ok})));
    }
}
