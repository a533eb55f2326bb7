//! The demo server, over real sockets: both eras, streams, and each fault.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "support/async_wait.rs"]
mod async_wait;

use std::future::ready;
use std::net::SocketAddr;
use std::time::Duration;

use async_wait::wait_for;
use reqwest::{Client, Response, StatusCode};
use rollbackd::clock::Clock;
use rollbackd::demo::server::{ScheduledFault, ServerSettings};
use rollbackd::demo::traffic::TrafficGenerator;
use rollbackd::demo::{Fault, server};
use rollbackd::model::Moment;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const BOTH: &str = "application/json, text/event-stream";

struct Server {
    url: String,
    address: SocketAddr,
    http: Client,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(fault: Option<&str>) -> Self {
        let fault = fault.map(|it| ScheduledFault { fault: it.parse().unwrap(), at: Moment(0) });
        Self::start_with(ServerSettings { fault, ..settings() }).await
    }

    async fn start_with(settings: ServerSettings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(server::serve(listener, settings));
        let tls = rollbackd::tls::no_roots().unwrap();
        let http = Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
        Self { url: format!("http://{address}/mcp"), address, http, task }
    }

    async fn legacy(&self, session: Option<&str>, message: Value) -> Response {
        let mut request = self.http.post(&self.url).header("accept", BOTH).json(&message);
        if let Some(session) = session {
            request = request
                .header("mcp-session-id", session)
                .header("mcp-protocol-version", "2025-11-25");
        }
        request.send().await.unwrap()
    }

    async fn modern(&self, method: &str, mut params: Value) -> Response {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let message = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params });
        let request = self.http.post(&self.url).header("accept", BOTH).json(&message);
        let request = request.header("mcp-protocol-version", "2026-07-28");
        request.header("mcp-method", method).send().await.unwrap()
    }

    async fn open_session(&self) -> String {
        let response = self.legacy(None, initialize("2025-06-18")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let session = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["result"]["protocolVersion"], "2025-06-18");
        assert_eq!(answer["result"]["serverInfo"]["version"], "v7");
        assert!(answer["result"]["capabilities"]["logging"].is_object());
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(self.legacy(Some(&session), initialized).await.status(), StatusCode::ACCEPTED);
        session
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings() -> ServerSettings {
    ServerSettings { version: "v7".to_owned(), fault: None, hidden_tool: None, outage_file: None }
}

fn initialize(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": version, "capabilities": {}, "clientInfo": {} },
    })
}

fn request(method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": {} })
}

fn call(tool: &str, arguments: Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
}

/// The one message of a stream that ends.
fn event(text: &str) -> Value {
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    serde_json::from_str(data).unwrap()
}

async fn kind_and_text(response: Response) -> (String, String) {
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, response.text().await.unwrap())
}

#[tokio::test]
async fn legacy_session_runs_from_initialize_to_delete() {
    let server = Server::start(None).await;
    let session = server.open_session().await;
    let session = Some(session.as_str());
    for method in ["ping", "logging/setLevel"] {
        let answer: Value = server.legacy(session, request(method)).await.json().await.unwrap();
        assert_eq!(answer["result"], json!({}), "{method}");
    }
    let tools: Value = server.legacy(session, request("tools/list")).await.json().await.unwrap();
    assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 3);
    let unknown = server.legacy(session, request("prompts/list")).await;
    assert_eq!(unknown.status(), StatusCode::OK, "404 would end the session");
    assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["code"], -32601);

    let (kind, text) =
        kind_and_text(server.legacy(session, call("echo", json!({ "message": "hi" }))).await).await;
    assert_eq!(kind, "application/json");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "hi");
    assert_eq!(answer["result"]["_meta"][server::VERSION_KEY], "v7");
    for (tool, arguments) in [("weather", json!({ "city": "Oslo" })), ("slow", json!({ "ms": 5 }))]
    {
        let (kind, text) = kind_and_text(server.legacy(session, call(tool, arguments)).await).await;
        assert_eq!(kind, "text/event-stream");
        assert_eq!(event(&text)["id"], 3);
        assert_eq!(event(&text)["result"]["isError"], false);
    }
    let wrong: Value = server.legacy(session, call("echo", json!({}))).await.json().await.unwrap();
    assert_eq!(wrong["result"]["isError"], true);
    let wrong: Value = server.legacy(session, call("nope", json!({}))).await.json().await.unwrap();
    assert_eq!(wrong["error"]["code"], -32602);
}

#[tokio::test]
async fn session_stream_lasts_until_the_session_is_deleted() {
    let server = Server::start(None).await;
    let session = server.open_session().await;
    let get = server.http.get(&server.url).header("mcp-session-id", &session);
    let mut stream = get.send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(stream.chunk().await.unwrap().unwrap(), ": open\n\n");
    assert!(timeout(Duration::from_millis(100), stream.chunk()).await.is_err(), "it stays open");
    let delete = || server.http.delete(&server.url).header("mcp-session-id", &session).send();
    assert_eq!(delete().await.unwrap().status(), StatusCode::OK);
    let end = timeout(Duration::from_secs(2), stream.chunk()).await.expect("the stream ends");
    assert_eq!(end.unwrap(), None);
    assert_eq!(delete().await.unwrap().status(), StatusCode::NOT_FOUND);
    let late = server.legacy(Some(&session), request("ping")).await;
    assert_eq!(late.status(), StatusCode::NOT_FOUND);
    assert_eq!(server.legacy(None, request("ping")).await.status(), StatusCode::BAD_REQUEST);
    let get = server.http.get(&server.url).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn modern_client_needs_no_session() {
    let server = Server::start(None).await;
    let found = server.modern("server/discover", json!({})).await;
    assert!(!found.headers().contains_key("mcp-session-id"));
    let found: Value = found.json().await.unwrap();
    assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(found["result"]["resultType"], "complete");
    let tools: Value = server.modern("tools/list", json!({})).await.json().await.unwrap();
    assert_eq!(tools["result"]["tools"][0]["name"], "echo");
    assert_eq!(tools["result"]["cacheScope"], "public");
    let weather = json!({ "name": "weather", "arguments": { "city": "Oslo" } });
    let (kind, text) = kind_and_text(server.modern("tools/call", weather).await).await;
    assert_eq!(kind, "text/event-stream");
    assert_eq!(event(&text)["result"]["resultType"], "complete");
    for method in ["ping", "initialize"] {
        let unknown = server.modern(method, json!({})).await;
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["code"], -32601);
    }
}

#[tokio::test]
async fn modern_request_with_mismatched_headers_is_rejected() {
    let server = Server::start(None).await;
    let send = |version: &'static str, meta: Value| {
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta },
        });
        server.http.post(&server.url).header("mcp-protocol-version", version).json(&message).send()
    };
    let meta = |version: &str| {
        json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        })
    };
    for (header, meta, code) in [
        ("2026-07-28", json!({}), -32602),
        ("2025-11-25", meta("2026-07-28"), -32020),
        ("2027-01-01", meta("2027-01-01"), -32022),
    ] {
        let response = send(header, meta).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], code);
    }
}

#[tokio::test]
async fn subscription_is_acknowledged_and_stays_open() {
    let server = Server::start(None).await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let mut stream = server.modern("subscriptions/listen", wanted).await;
    assert_eq!(stream.status(), StatusCode::OK);
    let first = stream.chunk().await.unwrap().unwrap();
    let first = event(std::str::from_utf8(&first).unwrap());
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "a");
    assert_eq!(first["params"]["notifications"], json!({ "toolsListChanged": true }));
    assert!(timeout(Duration::from_millis(100), stream.chunk()).await.is_err(), "it stays open");
    server.task.abort();
    let end = timeout(Duration::from_secs(2), stream.chunk()).await.expect("it ends with us");
    assert!(!matches!(end, Ok(Some(_))));
}

#[tokio::test]
async fn malformed_message_is_rejected() {
    let server = Server::start(None).await;
    let post = |body: String| server.http.post(&server.url).body(body).send();
    assert_eq!(post("{".to_owned()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(post("[]".to_owned()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let large = post(" ".repeat(1024 * 1024 + 1)).await;
    assert!(large.is_err() || large.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
    let elsewhere = server.http.get(format!("http://{}/", server.address)).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn total_fault_also_answers_500_to_probes() {
    let server = Server::start(Some("total")).await;
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    assert_eq!(server.legacy(None, initialize("2025-11-25")).await.status(), status);
    assert_eq!(server.modern("server/discover", json!({})).await.status(), status);
    assert_eq!(server.http.get(&server.url).send().await.unwrap().status(), status);
}

#[tokio::test]
async fn errors_fault_affects_only_its_share_of_calls() {
    let server = Server::start(Some("errors=20%")).await;
    let session = server.open_session().await;
    let mut failed = 0;
    for _ in 0..100 {
        let echo = call("echo", json!({ "message": "hi" }));
        let answer: Value = server.legacy(Some(&session), echo).await.json().await.unwrap();
        failed += usize::from(answer["error"]["code"] == -32603);
        let pong: Value =
            server.legacy(Some(&session), request("ping")).await.json().await.unwrap();
        assert_eq!(pong["result"], json!({}));
    }
    assert!((18..=22).contains(&failed), "{failed} of 100");
}

#[tokio::test]
async fn other_faults_have_their_documented_effect() {
    let echo = json!({ "name": "echo", "arguments": { "message": "hi" } });
    let errors = Server::start(Some("tool-errors")).await;
    let answer: Value = errors.modern("tools/call", echo.clone()).await.json().await.unwrap();
    assert_eq!(answer["result"]["isError"], true);

    let hang = Server::start(Some("hang")).await;
    let patience = Duration::from_millis(300);
    assert!(timeout(patience, hang.modern("tools/call", echo.clone())).await.is_err());
    assert_eq!(hang.modern("tools/list", json!({})).await.status(), StatusCode::OK);

    let slow = Server::start(Some("slow")).await;
    assert!(timeout(patience, slow.modern("tools/call", echo.clone())).await.is_err());
    let late = timeout(Duration::from_secs(5), slow.modern("tools/call", echo)).await;
    assert_eq!(late.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn one_tool_fails_and_the_others_work() {
    let server = Server::start(Some("one-tool")).await;
    for (tool, arguments, fails) in
        [("weather", json!({ "city": "Oslo" }), true), ("echo", json!({ "message": "hi" }), false)]
    {
        let params = json!({ "name": tool, "arguments": arguments });
        let text = server.modern("tools/call", params).await.text().await.unwrap();
        assert_eq!(text.contains(r#""isError":true"#), fails, "{text}");
    }
}

#[tokio::test]
async fn calls_fail_while_the_file_of_an_outage_exists() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outage");
    let server =
        Server::start_with(ServerSettings { outage_file: Some(file.clone()), ..settings() }).await;
    let is_error = async || {
        let echo = json!({ "name": "echo", "arguments": { "message": "hi" } });
        let answer: Value = server.modern("tools/call", echo).await.json().await.unwrap();
        answer["result"]["isError"].clone()
    };
    assert_eq!(is_error().await, false);
    std::fs::write(&file, "").unwrap();
    assert_eq!(is_error().await, true);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(is_error().await, false);
}

#[tokio::test]
async fn crash_loop_fault_ends_the_server_at_its_time_and_after_each_start() {
    let mut again = Server::start(Some("crash-loop")).await;
    timeout(Duration::from_secs(2), &mut again.task).await.expect("it ends").unwrap();

    let at = Clock::start(Moment(0)).now() + Duration::from_millis(400);
    let fault = Some(ScheduledFault { fault: Fault::CrashLoop, at });
    let mut first = Server::start_with(ServerSettings { fault, ..settings() }).await;
    let session = first.open_session().await;
    let pong = first.legacy(Some(&session), request("ping")).await;
    assert_eq!(pong.status(), StatusCode::OK, "it is not yet time");
    timeout(Duration::from_secs(2), &mut first.task).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn traffic_generator_reports_a_healthy_and_a_broken_server_correctly() {
    let clock = Clock::start(Moment(0));
    let begun = clock.now();
    let good = Server::start(None).await;
    let load = TrafficGenerator::start(good.address, 100, clock);
    let counts = load.counter();
    wait_for("requests", || ready((counts().requests > 150).then_some(()))).await;
    let report = load.stop(begun).await;
    assert!(report.requests > 150, "{report:?}");
    assert_eq!((report.failed, report.not_sent), (0, 0), "{report:?}");
    assert!(report.sessions.kept >= 9, "{report:?}");
    assert_eq!((report.sessions.migrated, report.sessions.broken), (0, 0), "{report:?}");

    let bad = Server::start(Some("tool-errors")).await;
    let load = TrafficGenerator::start(bad.address, 100, clock);
    let counts = load.counter();
    wait_for("failures", || ready((counts().failed > 30).then_some(()))).await;
    let report = load.stop(begun).await;
    assert!(report.failed > 30, "{report:?}");
    assert!(report.first_bad < report.last_bad, "{report:?}");
    assert_eq!(report.reasons.len(), 1, "{report:?}");
}
