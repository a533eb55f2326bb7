//! A server of the Rust SDK, for clients with sessions and without. The releases name its tool.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::RoleServer;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig,
    SubscriptionFilter, Tool,
};
use rmcp::service::{RequestContext, SubscriptionContext};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// Serves `echo`, and a slow tool of the given name, at the port in the environment.
#[tokio::main]
pub async fn serve(slow: &'static str) {
    let port = env::var("PORT").unwrap().parse().unwrap();
    let service = StreamableHttpService::new(
        move || Ok(Server { slow }),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default(),
    );
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await.unwrap();
}

struct Server {
    slow: &'static str,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build(),
        )
    }

    fn accepted_subscription_filter(
        &self,
        asked: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(asked.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        context.cancelled().await;
        Ok(())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let any = json!({"type": "object"}).as_object().unwrap().clone();
        let tool = |name| Tool::new(name, "", any.clone());
        Ok(ListToolsResult::with_all_items(vec![tool("echo"), tool(self.slow)]))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let input = Value::Object(call.arguments.unwrap_or_default());
        let text = match call.name.as_ref() {
            "echo" => format!("Echo: {}", input["message"].as_str().unwrap_or_default()),
            name if name == self.slow => work(&input, &context).await,
            _ => return Err(ErrorData::invalid_params("tool not found", None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn work(input: &Value, context: &RequestContext<RoleServer>) -> String {
    let steps = input["steps"].as_u64().unwrap_or(1);
    let seconds = input["ms"].as_f64().map(|ms| ms / 1000.0).or(input["duration"].as_f64());
    let pause = Duration::from_secs_f64(seconds.unwrap_or(0.0) / steps as f64);
    let token = context.meta.get_progress_token();
    for step in 0..steps {
        if let Some(token) = token.clone() {
            let progress = ProgressNotificationParam::new(token, step as f64);
            let _ = context.peer.notify_progress(progress).await;
        }
        sleep(pause).await;
    }
    "completed".to_owned()
}
