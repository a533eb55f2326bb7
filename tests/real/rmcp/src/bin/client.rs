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
struct Heard {
    changes: AtomicU64,
    updates: AtomicU64,
    progress: Notify,
    /// A subscription that ended, which it should not.
    ended: AtomicU64,
}

#[derive(Clone)]
struct Ear(Arc<Heard>);

impl ClientHandler for Ear {
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

struct Guest {
    client: RunningService<RoleClient, Ear>,
    spy: Spy,
    heard: Arc<Heard>,
    pending: Option<JoinHandle<Result<CallToolResult, ServiceError>>>,
}

impl Guest {
    async fn connect(modern: bool, url: &str) -> Result<Self, Value> {
        let (spy, heard) = (Spy::default(), Arc::<Heard>::default());
        let config = StreamableHttpClientTransportConfig::with_uri(url);
        let transport = StreamableHttpClientTransport::with_client(spy.clone(), config);
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        let mode = if modern {
            ClientLifecycleMode::Discover { preferred_versions }
        } else {
            ClientLifecycleMode::Initialize
        };
        let client = Ear(heard.clone()).serve_with_lifecycle(transport, mode).await;
        let client = client.map_err(|error| json!({"error": error.to_string()}))?;
        if modern {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let subscription = client.listen(filter).await.map_err(|error| told(&error))?;
            tokio::spawn(listen(subscription, heard.clone()));
        } else {
            spy.listens.notified().await;
        }
        Ok(Self { client, spy, heard, pending: None })
    }

    fn id(&self) -> Value {
        self.spy.session.lock().unwrap().as_deref().into()
    }

    #[expect(deprecated, reason = "clients subscribe, and the sessions with them move")]
    async fn answer(&mut self, verb: &str, rest: &Value) -> Result<Value, Value> {
        let text = |name: &str| rest[name].as_str().unwrap().to_owned();
        let failed = |error| told(&error);
        if self.heard.ended.load(Ordering::Relaxed) != 0 {
            return Err(json!({"error": "the subscription ended"}));
        }
        match verb {
            "id" => Ok(self.id()),
            "news" => Ok(soon(&self.heard.changes, 5).await),
            "updated" => Ok(soon(&self.heard.updates, 20).await),
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
                let _ = self.heard.progress.notified().now_or_never();
                self.begin(CallToolRequestParams::new(text("tool")).with_arguments(input));
                if verb == "call" {
                    return self.finish().await;
                }
                self.heard.progress.notified().await;
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

async fn listen(mut subscription: Subscription, heard: Arc<Heard>) {
    while let Ok(Some(_)) = subscription.next().await {
        heard.changes.fetch_add(1, Ordering::Relaxed);
    }
    heard.ended.fetch_add(1, Ordering::Relaxed);
}

/// How often it was heard; waits some seconds for the first time.
async fn soon(heard: &AtomicU64, seconds: u32) -> Value {
    for _ in 0..10 * seconds {
        if heard.load(Ordering::Relaxed) != 0 {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    heard.load(Ordering::Relaxed).into()
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
    let mut guests = BTreeMap::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let question: Value = serde_json::from_str(&line).unwrap();
        let (who, verb) = (question["who"].to_string(), question["do"].as_str().unwrap());
        let answer = if verb == "connect" {
            Guest::connect(modern, url).await.map(|guest| {
                let stream = (!modern).then_some(200);
                let welcome = json!({"session": guest.id(), "stream": stream});
                guests.insert(who, guest);
                welcome
            })
        } else if verb == "close" {
            guests.remove(&who).unwrap().client.cancel().await.unwrap();
            Ok("closed".into())
        } else {
            guests.get_mut(&who).unwrap().answer(verb, &question).await
        };
        println!("{}", answer.map_or_else(|error| error, |ok| json!({"ok": ok})));
    }
}
