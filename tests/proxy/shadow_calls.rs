//! The proxy repeats failed requests of the trial on the warm release, for the judge alone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment};
use rollbackd::proxy::Proxy;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::fake_backend::{SSE_HEAD, json_answer, read_request, scripted};
use crate::http_client::{INITIALIZE, header, open_session, post, tool_call};
use crate::{RELEASE_A, RELEASE_B, proxy_with, wait_for_counts, wait_until};

pub(crate) const TOOLS_LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
const TOKEN: &str = "Bearer s3cret-of-a-client";

/// A legacy release with scripted responses; a call that gets `None` hangs.
pub(crate) struct FakeRelease {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<(String, Value)>>>,
}

impl FakeRelease {
    async fn start(answer: fn(&Value) -> Option<Value>) -> Self {
        Self::with_responder(move |body| {
            let mut message = answer(body)?;
            message["id"] = body["id"].clone();
            Some(json_answer(&message.to_string()))
        })
        .await
    }

    pub(crate) async fn with_responder(
        say: impl Fn(&Value) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let (log, say) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(say));
        let noted = Arc::clone(&log);
        let address = scripted(move |mut stream| {
            let (log, say) = (Arc::clone(&noted), Arc::clone(&say));
            async move {
                while let Some((head, body)) = read_request(&mut stream).await {
                    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                    log.lock().unwrap().push((head, body.clone()));
                    let Some(text) = say(&body) else { return std::future::pending().await };
                    stream.write_all(text.as_bytes()).await.unwrap();
                }
            }
        })
        .await;
        Self { address, log }
    }

    fn log(&self) -> Vec<(String, Value)> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn methods(&self) -> Vec<String> {
        let log = self.log();
        let method = |body: &Value| body["method"].as_str().unwrap_or("DELETE").to_owned();
        log.iter().map(|(_, body)| method(body)).collect()
    }
}

/// Welcomes, and what calls get.
pub(crate) fn with_initialize(body: &Value, calls: Value) -> Option<String> {
    let answer = match body["method"].as_str() {
        Some("initialize") => json!({"result": {"protocolVersion": "2025-06-18"}}),
        Some("notifications/initialized") => {
            return Some("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_owned());
        }
        None => return Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
        Some(_) => calls,
    };
    let mut answer = answer;
    answer["id"] = body["id"].clone();
    let answer = json_answer(&answer.to_string());
    Some(answer.replacen("\r\n\r\n", "\r\nMcp-Session-Id: s-1\r\n\r\n", 1))
}

async fn healthy_release() -> FakeRelease {
    FakeRelease::with_responder(|body| with_initialize(body, json!({"result": {"tools": []}})))
        .await
}

async fn failing_release() -> FakeRelease {
    FakeRelease::with_responder(|body| {
        with_initialize(body, json!({"error": {"code": -32603, "message": "x"}}))
    })
    .await
}

/// A new release that fails, beside a warm one.
pub(crate) async fn proxy_with_trial(warm: &FakeRelease) -> Proxy {
    let proxy = proxy_with(failing_release().await.address, |service| {
        service.limits.deadline = Duration::from_millis(500);
        service.limits.repeatable_tools = BTreeSet::from(["named".to_owned()]);
    });
    proxy.add_release(RELEASE_B, &Address::Tcp(warm.address));
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 0);
    proxy
}

pub(crate) async fn post_failing(proxy: &Proxy, body: &str) {
    let reply = post(proxy.local_addr(), body, &format!("Authorization: {TOKEN}\r\n")).await;
    assert_eq!(reply.json()["error"]["code"], -32603, "{reply:?}");
}

pub(crate) async fn wait_for_shadowed(proxy: &Proxy, want: (u64, u64)) {
    let seen = || format!("{:?}", proxy.shadow_results(RELEASE_B));
    wait_until(&format!("{want:?}"), || proxy.shadow_results(RELEASE_B) == want, seen).await;
}

#[tokio::test]
async fn failed_request_is_repeated_in_a_separate_session() {
    let warm = healthy_release().await;
    let proxy = proxy_with_trial(&warm).await;
    let mine = open_session(proxy.local_addr()).await;
    let headers = format!("{mine}Authorization: {TOKEN}\r\nX-Tenant: t\r\nRollbackd-Shadow: 0\r\n");
    let reply = post(proxy.local_addr(), TOOLS_LIST, &headers).await;
    assert_eq!(reply.text(), r#"{"error":{"code":-32603,"message":"x"},"id":1}"#);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 3);
    wait_for_shadowed(&proxy, (3, 0)).await;
    wait_until("the end", || warm.log().len() == 6, || format!("{:?}", warm.methods())).await;
    let lists = ["tools/list"; 3];
    let want = [&["initialize", "notifications/initialized"], &lists[..], &["DELETE"]].concat();
    assert_eq!(warm.methods(), want);
    let mut ids = BTreeSet::from(["1".to_owned()]);
    for (at, (head, body)) in warm.log().iter().enumerate() {
        assert_eq!(header(head, "rollbackd-shadow"), Some("1"), "{head}");
        assert_eq!(header(head, "authorization"), Some(TOKEN), "{head}");
        assert_eq!(header(head, "x-tenant"), Some("t"), "{head}");
        let (session, protocol) =
            if at == 0 { (None, None) } else { (Some("s-1"), Some("2025-06-18")) };
        assert_eq!(header(head, "mcp-session-id"), session, "{head}");
        assert_eq!(header(head, "mcp-protocol-version"), protocol, "{head}");
        assert!(body["id"].is_null() || ids.insert(body["id"].to_string()), "{body}");
    }
    assert_eq!(warm.log()[0].1["params"]["clientInfo"]["name"], "rollbackd-shadow");
    // The counters of the warm release do not contain them.
    assert_eq!(
        (proxy.counts(RELEASE_B), proxy.counts_by_call(RELEASE_B).len()),
        (Counts::default(), 0)
    );
    assert_eq!(proxy.load(RELEASE_B, Moment(0)).sessions, 0);
    let want =
        Counts { ok: 1, server_fault: 1, repeatable: 1, repeatable_failed: 1, ..Counts::default() };
    wait_for_counts(&proxy, RELEASE_A, want).await;
}

#[tokio::test]
async fn modern_shadow_call_needs_no_session_and_keeps_headers() {
    let warm = healthy_release().await;
    let proxy = proxy_with_trial(&warm).await;
    let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n";
    post(proxy.local_addr(), TOOLS_LIST, headers).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
    wait_for_shadowed(&proxy, (2, 0)).await;
    assert_eq!(warm.methods(), ["tools/list"; 2]);
    for (head, _) in warm.log() {
        assert_eq!(header(&head, "mcp-method"), Some("tools/list"));
        assert_eq!(header(&head, "mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(header(&head, "rollbackd-shadow"), Some("1"));
    }
}

#[tokio::test]
async fn only_read_only_tools_are_repeated() {
    let warm = healthy_release().await;
    let proxy = proxy_with_trial(&warm).await;
    proxy.set_read_only_tools(BTreeSet::from(["look".to_owned()]));
    let smuggled =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wipe","uri":"look"}}"#;
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"n\u0061me":"wipe","name":"look"}}"#;
    let batch = format!("[{TOOLS_LIST}]");
    for body in [&tool_call("1", "wipe", "{}"), smuggled, twice, &batch] {
        post(proxy.local_addr(), body, "").await;
        proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 5);
    }
    for tool in ["look", "named"] {
        post_failing(&proxy, &tool_call("1", tool, "{}")).await;
    }
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
    wait_for_shadowed(&proxy, (2, 0)).await;
    // These are all: what was sent before them was not repeated.
    let names = warm.log();
    let names = names.iter().filter_map(|(_, body)| body["params"]["name"].as_str());
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(["look", "named"]));
    // A tool that is no longer read-only is not repeated, also where a sample was kept.
    proxy.set_read_only_tools(BTreeSet::new());
    post_failing(&proxy, &tool_call("1", "look", "{}")).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 4);
    wait_for_shadowed(&proxy, (6, 0)).await;
    let log = warm.log();
    let looked = log.iter().filter(|(_, body)| body["params"]["name"] == "look");
    assert_eq!(looked.count(), 1);
    let safe = proxy.counts_by_call(RELEASE_A)[&("tools/call".into(), "look".into())];
    // The line of its name also holds the one that only seems to be of that name.
    assert_eq!((safe.server_fault, safe.repeatable, safe.repeatable_failed), (3, 2, 2));
}

#[tokio::test]
async fn disabled_or_oversized_requests_are_not_sampled() {
    let warm = healthy_release().await;
    let proxy = proxy_with_trial(&warm).await;
    post_failing(&proxy, TOOLS_LIST).await;
    proxy.stop_shadowing(RELEASE_A);
    post_failing(&proxy, TOOLS_LIST).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 5);
    let large = TOOLS_LIST.replace("{}", &format!("{{\"x\":\"{}\"}}", "x".repeat(17_000)));
    post_failing(&proxy, &large).await;
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    assert_eq!(reply.status, 200);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 5);
    // Nothing is sent in this time. A repeat takes a few milliseconds, as the tests above show.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((warm.methods().len(), proxy.shadow_results(RELEASE_B)), (0, (0, 0)));
}

#[tokio::test]
async fn failure_on_both_is_bad_and_no_response_is_ignored() {
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let denied = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 41\r\n\r\n{\"id\":null,\"error\":{\"code\":-1,\"x\":\"12345\"}}";
    for (calls, want) in [
        (json!({"error": {"code": -32603}}), (2, 2)),
        (json!({"result": {"isError": true}}), (2, 2)),
        (json!({"result": {}}), (2, 0)),
        (json!({"error": {"code": -32602}}), (0, 0)),
        (json!({"result": {"resultType": "input_required"}}), (0, 0)),
        (json!(late), (2, 2)),
        (json!(denied), (0, 0)),
        (json!("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), (2, 2)),
        (json!("events"), (2, 0)),
    ] {
        let told = calls.clone();
        let warm = FakeRelease::with_responder(move |body| match told.as_str() {
            Some("events") if body["method"] == "tools/list" => {
                let answer = json!({"id": body["id"], "result": {}});
                Some(format!("{SSE_HEAD}data: {{\"method\":\"x\"}}\n\ndata: {answer}\n\n"))
            }
            Some("events") => with_initialize(body, Value::Null),
            Some(text) if body["method"] == "tools/list" => Some(text.to_owned()),
            Some(_) => with_initialize(body, Value::Null),
            None => with_initialize(body, told.clone()),
        })
        .await;
        let proxy = proxy_with_trial(&warm).await;
        post_failing(&proxy, TOOLS_LIST).await;
        proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
        let over = || warm.methods().last().is_some_and(|it| it == "DELETE");
        wait_until("the end", over, || format!("{calls} {:?}", warm.methods())).await;
        assert_eq!(proxy.shadow_results(RELEASE_B), want, "{calls}");
    }
}

#[tokio::test]
async fn rejected_token_is_ignored_and_refused_connection_is_bad() {
    let warm = FakeRelease::with_responder(|_| {
        Some("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned())
    })
    .await;
    let proxy = proxy_with_trial(&warm).await;
    post_failing(&proxy, TOOLS_LIST).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
    wait_until("asked", || warm.log().len() == 1, String::new).await;
    // The rejection counts as nothing: also not in this time, in which it has long arrived.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        (warm.methods(), proxy.shadow_results(RELEASE_B)),
        (vec!["initialize".to_owned()], (0, 0))
    );

    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    proxy.remove_release(RELEASE_B).await;
    proxy.add_release(RELEASE_B, &Address::Tcp(gone));
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
    wait_for_shadowed(&proxy, (2, 2)).await;
}

#[tokio::test]
async fn hanging_warm_release_is_bad_after_two_seconds_and_drains_immediately() {
    let warm = FakeRelease::start(|_| None).await;
    let proxy = proxy_with_trial(&warm).await;
    for _ in 0..20 {
        post_failing(&proxy, TOOLS_LIST).await;
    }
    // Never more than 32 in flight.
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 20);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 20);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 20);
    // No result before the two seconds that a release has to answer.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(proxy.shadow_results(RELEASE_B), (0, 0));
    wait_for_shadowed(&proxy, (32, 32)).await;
    // 16 of the samples are sent in turn, each on a session of its own.
    assert_eq!(warm.methods(), vec!["initialize"; 16 + 12]);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 20);
    wait_until("sent", || warm.methods().len() > 16 + 12, String::new).await;
    assert_eq!(proxy.load(RELEASE_B, Moment(0)).in_flight, 0);
    let drain = proxy.drain(RELEASE_B, Duration::from_secs(30));
    tokio::time::timeout(Duration::from_millis(500), drain).await.unwrap();
    // A release that is drained gets no result, also not when its time to answer is over.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(proxy.shadow_results(RELEASE_B), (32, 32));
}

#[tokio::test]
async fn overdue_request_is_repeated() {
    let warm = healthy_release().await;
    let proxy = proxy_with_trial(&warm).await;
    let hangs = FakeRelease::start(|_| None).await;
    proxy.remove_release(RELEASE_A).await;
    proxy.add_release(RELEASE_A, &Address::Tcp(hangs.address));
    proxy.set_active(RELEASE_A);
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 0);
    let _open = crate::http_client::open_request(proxy.local_addr(), TOOLS_LIST, "").await;
    let overdue =
        Counts { server_fault: 1, repeatable: 1, repeatable_failed: 1, ..Counts::default() };
    wait_for_counts(&proxy, RELEASE_A, overdue).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 1);
    wait_for_shadowed(&proxy, (1, 0)).await;
}

/// A log that can be read.
#[derive(Clone, Default)]
struct SharedLog(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for SharedLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn credentials_are_never_logged() {
    let log = SharedLog::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("a log line");
    let warm = failing_release().await;
    let proxy = proxy_with_trial(&warm).await;
    post_failing(&proxy, TOOLS_LIST).await;
    proxy.send_shadow_calls(RELEASE_A, RELEASE_B, 2);
    wait_for_shadowed(&proxy, (2, 2)).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap() + &format!("{proxy:?}");
    assert!(text.contains("a log line") && text.contains("SampledRequest"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
