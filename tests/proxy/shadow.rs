//! What failed on the release on trial is asked once more of the warm one, for nobody but the judge.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment};
use rollbackd::proxy::Proxy;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::client::{INITIALIZE, call, header, post, session};
use crate::upstream::{EVENTS, asked, json_answer, scripted};
use crate::{A, B, counted, eventually, with};

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;
const TOKEN: &str = "Bearer s3cret-of-a-client";

/// A legacy release that answers calls as it is told; a call that gets `None` hangs.
struct Release {
    address: SocketAddr,
    log: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Release {
    async fn start(answer: fn(&Value) -> Option<Value>) -> Self {
        Self::saying(move |body| {
            let mut message = answer(body)?;
            message["id"] = body["id"].clone();
            Some(json_answer(&message.to_string()))
        })
        .await
    }

    async fn saying(say: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) -> Self {
        let (log, say) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(say));
        let noted = Arc::clone(&log);
        let address = scripted(move |mut stream| {
            let (log, say) = (Arc::clone(&noted), Arc::clone(&say));
            async move {
                while let Some((head, body)) = asked(&mut stream).await {
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

    fn methods(&self) -> Vec<String> {
        let log = self.log();
        let method = |body: &Value| body["method"].as_str().unwrap_or("DELETE").to_owned();
        log.iter().map(|(_, body)| method(body)).collect()
    }
}

/// Welcomes, and what calls get.
fn polite(body: &Value, calls: Value) -> Option<String> {
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

async fn good() -> Release {
    Release::saying(|body| polite(body, json!({"result": {"tools": []}}))).await
}

async fn bad() -> Release {
    Release::saying(|body| polite(body, json!({"error": {"code": -32603, "message": "x"}}))).await
}

/// A new release that fails, beside a warm one.
async fn trial(warm: &Release) -> Proxy {
    let proxy = with(bad().await.address, |service| {
        service.limits.deadline = Duration::from_millis(500);
        service.limits.repeatable_tools = BTreeSet::from(["named".to_owned()]);
    });
    proxy.add(B, &Address::Tcp(warm.address));
    proxy.shadow(A, B, 0);
    proxy
}

async fn fails(proxy: &Proxy, body: &str) {
    let reply = post(proxy.local_addr(), body, &format!("Authorization: {TOKEN}\r\n")).await;
    assert_eq!(reply.json()["error"]["code"], -32603, "{reply:?}");
}

async fn shadowed(proxy: &Proxy, want: (u64, u64)) {
    let seen = || format!("{:?}", proxy.shadowed(B));
    eventually(&format!("{want:?}"), || proxy.shadowed(B) == want, seen).await;
}

#[tokio::test]
async fn a_failed_request_is_repeated_on_a_session_of_its_own() {
    let warm = good().await;
    let proxy = trial(&warm).await;
    let mine = session(proxy.local_addr()).await;
    let headers = format!("{mine}Authorization: {TOKEN}\r\nX-Tenant: t\r\nRollbackd-Shadow: 0\r\n");
    let reply = post(proxy.local_addr(), LIST, &headers).await;
    assert_eq!(reply.text(), r#"{"error":{"code":-32603,"message":"x"},"id":1}"#);
    proxy.shadow(A, B, 3);
    shadowed(&proxy, (3, 0)).await;
    eventually("the end", || warm.log().len() == 6, || format!("{:?}", warm.methods())).await;
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
    // They are nowhere in the record of the warm release.
    assert_eq!((proxy.counts(B), proxy.calls(B).len()), (Counts::default(), 0));
    assert_eq!(proxy.load(B, Moment(0)).sessions, 0);
    let want = Counts { ok: 1, server_fault: 1, safe: 1, safe_bad: 1, ..Counts::default() };
    counted(&proxy, A, want).await;
}

#[tokio::test]
async fn a_request_of_2026_needs_no_session_and_keeps_its_headers() {
    let warm = good().await;
    let proxy = trial(&warm).await;
    let headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n";
    post(proxy.local_addr(), LIST, headers).await;
    proxy.shadow(A, B, 2);
    shadowed(&proxy, (2, 0)).await;
    assert_eq!(warm.methods(), ["tools/list"; 2]);
    for (head, _) in warm.log() {
        assert_eq!(header(&head, "mcp-method"), Some("tools/list"));
        assert_eq!(header(&head, "mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(header(&head, "rollbackd-shadow"), Some("1"));
    }
}

#[tokio::test]
async fn only_tools_that_change_nothing_are_repeated() {
    let warm = good().await;
    let proxy = trial(&warm).await;
    proxy.set_safe_tools(BTreeSet::from(["look".to_owned()]));
    let smuggled = r#"{"id":1,"method":"tools/call","params":{"name":"wipe","uri":"look"}}"#;
    let batch = format!("[{LIST}]");
    for body in [&call("1", "wipe", "{}"), smuggled, &batch] {
        post(proxy.local_addr(), body, "").await;
        proxy.shadow(A, B, 5);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(warm.methods(), [""; 0]);
    for tool in ["look", "named"] {
        fails(&proxy, &call("1", tool, "{}")).await;
    }
    proxy.shadow(A, B, 2);
    shadowed(&proxy, (2, 0)).await;
    let names = warm.log();
    let names = names.iter().filter_map(|(_, body)| body["params"]["name"].as_str());
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(["look", "named"]));
    // What was safe is not safe any more, also for what is kept already.
    proxy.set_safe_tools(BTreeSet::new());
    fails(&proxy, &call("1", "look", "{}")).await;
    proxy.shadow(A, B, 4);
    shadowed(&proxy, (6, 0)).await;
    let log = warm.log();
    let looked = log.iter().filter(|(_, body)| body["params"]["name"] == "look");
    assert_eq!(looked.count(), 1);
    let safe = proxy.calls(A)[&("tools/call".into(), "look".into())];
    // The line of its name also holds the one that only seemed to be of that name.
    assert_eq!((safe.server_fault, safe.safe, safe.safe_bad), (3, 2, 2));
}

#[tokio::test]
async fn nothing_is_kept_when_it_is_off_or_does_not_fit() {
    let warm = good().await;
    let proxy = trial(&warm).await;
    fails(&proxy, LIST).await;
    proxy.shadow_off(A);
    fails(&proxy, LIST).await;
    proxy.shadow(A, B, 5);
    let large = LIST.replace("{}", &format!("{{\"x\":\"{}\"}}", "x".repeat(17_000)));
    fails(&proxy, &large).await;
    let reply = post(proxy.local_addr(), INITIALIZE, "").await;
    assert_eq!(reply.status, 200);
    proxy.shadow(A, B, 5);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((warm.methods().len(), proxy.shadowed(B)), (0, (0, 0)));
}

#[tokio::test]
async fn what_fails_on_both_is_bad_and_what_says_nothing_does_not_count() {
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
        let warm = Release::saying(move |body| match told.as_str() {
            Some("events") if body["method"] == "tools/list" => {
                let answer = json!({"id": body["id"], "result": {}});
                Some(format!("{EVENTS}data: {{\"method\":\"x\"}}\n\ndata: {answer}\n\n"))
            }
            Some("events") => polite(body, Value::Null),
            Some(text) if body["method"] == "tools/list" => Some(text.to_owned()),
            Some(_) => polite(body, Value::Null),
            None => polite(body, told.clone()),
        })
        .await;
        let proxy = trial(&warm).await;
        fails(&proxy, LIST).await;
        proxy.shadow(A, B, 2);
        let over = || warm.methods().last().is_some_and(|it| it == "DELETE");
        eventually("the end", over, || format!("{calls} {:?}", warm.methods())).await;
        assert_eq!(proxy.shadowed(B), want, "{calls}");
    }
}

#[tokio::test]
async fn a_warm_release_that_refuses_the_token_says_nothing_and_one_that_is_gone_is_bad() {
    let warm =
        Release::saying(|_| Some("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned()))
            .await;
    let proxy = trial(&warm).await;
    fails(&proxy, LIST).await;
    proxy.shadow(A, B, 2);
    eventually("asked", || warm.log().len() == 1, String::new).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((warm.methods(), proxy.shadowed(B)), (vec!["initialize".to_owned()], (0, 0)));

    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    proxy.remove(B).await;
    proxy.add(B, &Address::Tcp(gone));
    proxy.shadow(A, B, 2);
    shadowed(&proxy, (2, 2)).await;
}

#[tokio::test]
async fn a_warm_release_that_hangs_is_bad_after_two_seconds_and_drained_at_once() {
    let warm = Release::start(|_| None).await;
    let proxy = trial(&warm).await;
    for _ in 0..20 {
        fails(&proxy, LIST).await;
    }
    // Never more than 32 on their way.
    proxy.shadow(A, B, 20);
    proxy.shadow(A, B, 20);
    proxy.shadow(A, B, 20);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(proxy.shadowed(B), (0, 0));
    shadowed(&proxy, (32, 32)).await;
    // 16 of the kept are asked in turn, each on a session of its own.
    assert_eq!(warm.methods(), vec!["initialize"; 16 + 12]);
    proxy.shadow(A, B, 20);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(proxy.load(B, Moment(0)).in_flight, 0);
    let drain = proxy.drain(B, Duration::from_secs(30));
    tokio::time::timeout(Duration::from_millis(500), drain).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(proxy.shadowed(B), (32, 32));
}

#[tokio::test]
async fn a_request_that_is_overdue_is_repeated_too() {
    let warm = good().await;
    let proxy = trial(&warm).await;
    let hangs = Release::start(|_| None).await;
    proxy.remove(A).await;
    proxy.add(A, &Address::Tcp(hangs.address));
    proxy.route(A);
    proxy.shadow(A, B, 0);
    let _open = crate::client::open(proxy.local_addr(), LIST, "").await;
    let overdue = Counts { server_fault: 1, safe: 1, safe_bad: 1, ..Counts::default() };
    counted(&proxy, A, overdue).await;
    proxy.shadow(A, B, 1);
    shadowed(&proxy, (1, 0)).await;
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_credentials_are_logged_nor_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("it is heard");
    let warm = bad().await;
    let proxy = trial(&warm).await;
    fails(&proxy, LIST).await;
    proxy.shadow(A, B, 2);
    shadowed(&proxy, (2, 2)).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap() + &format!("{proxy:?}");
    assert!(text.contains("it is heard") && text.contains("Repeat"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}
