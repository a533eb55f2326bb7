//! Probes against servers that answer correctly, wrongly, late, or not at all.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "../support/async_wait.rs"]
mod async_wait;
mod differential;
mod endpoint_client;
mod fake_server;
mod kinds;
mod lost;
mod scrapes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use fake_server::{
    AfterResponse, FakeResponse, FakeServer, ReceivedRequest, initialize_result, legacy_response,
    modern_response,
};
use rollbackd::config::{Address, ProbeKind, ProbeSettings};
use rollbackd::model::{ContractPart, ProbeResult, Release, ReleaseNumber, Slot};
use rollbackd::signal::{Endpoint, Prober};
use serde_json::json;
use tokio::net::TcpListener;

impl FakeServer {
    fn prober(&self, kind: ProbeKind) -> Prober {
        prober(kind, &self.address)
    }
}

fn prober(kind: ProbeKind, address: &Address) -> Prober {
    let timeout = Duration::from_millis(if cfg!(debug_assertions) { 1500 } else { 800 });
    let probe = ProbeSettings { kind, interval: Duration::from_secs(1), timeout, ready_after: 3 };
    let endpoint = Endpoint { address, host: "localhost:8080", path: "/mcp" };
    Prober::with_endpoint(&probe, endpoint, &release())
}

fn release() -> Release {
    Release {
        version: "v2".into(),
        number: ReleaseNumber(7),
        slot: Slot("green".into()),
        artifact: None,
        digest: None,
        environment: BTreeMap::new(),
        same_version: false,
    }
}

fn http_probe(field: Option<(&str, &str)>) -> ProbeKind {
    let field = field.map(|(pointer, value)| (pointer.to_owned(), value.to_owned()));
    ProbeKind::Http { path: "/health".into(), status: 200, field }
}

fn assert_wrong(reply: &ProbeResult, part: &str) {
    assert!(
        matches!(reply, ProbeResult::Unexpected(what) if what.contains(part)),
        "{reply:?} without {part:?}"
    );
}

#[tokio::test]
async fn legacy_server_gets_one_session() {
    let opened = Mutex::new(0);
    let fake = FakeServer::start(move |asked| legacy_response(asked, &opened, |_| true, 404)).await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..3 {
        assert_eq!(prober.probe().await, ProbeResult::Ok);
    }
    let want = [
        "server/discover",
        "initialize",
        "notifications/initialized",
        "tools/list",
        "tools/list",
        "tools/list",
    ];
    assert_eq!(fake.methods(), want);
    prober.close().await;
    assert_eq!(fake.deleted_sessions(), 1);
    let log = fake.log.lock().unwrap();
    let last = log.last().unwrap();
    assert_eq!(last.header("mcp-session-id"), Some("s1"));
    assert_eq!(last.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(last.header("user-agent"), Some("rollbackd-probe"));
    assert_eq!(log[0].header("accept"), Some("application/json, text/event-stream"));
}

#[tokio::test]
async fn legacy_server_may_answer_with_an_open_sse_stream() {
    let fake = FakeServer::start(|asked| {
        if asked.method_name == "DELETE" || asked.method().starts_with("notifications/") {
            return FakeResponse::with(202, "", "");
        }
        let result = match asked.method() {
            "initialize" => initialize_result(asked),
            "tools/list" => json!({"tools": []}),
            _ => return FakeResponse::error(400, asked, -32000, "Server not initialized"),
        };
        let answer = json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result});
        let other = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
        let events = format!(
            "id: 0\ndata:\n\n: hello\ndata: {other}\r\n\r\nevent: message\ndata: {answer}\n\n"
        );
        FakeResponse::events(&events).then(AfterResponse::Hang)
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
}

#[tokio::test]
async fn modern_server_gets_modern_requests() {
    let fake = FakeServer::start(modern_response).await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
    assert_eq!(fake.methods(), ["server/discover", "server/discover"]);
    let contract = prober.discover_contract(&BTreeSet::new()).await.unwrap();
    assert_eq!(contract.server, "new 3");
    assert_eq!(Vec::from_iter(contract.protocols), ["2026-07-28"]);
    assert_eq!(Vec::from_iter(contract.capabilities), ["tools"]);
    assert_eq!(Vec::from_iter(contract.tools), ["tool1", "tool2", "tool3"]);
    assert_eq!(Vec::from_iter(contract.read_only_tools), ["tool1", "tool3"]);
}

#[tokio::test]
async fn lost_session_is_reopened() {
    for lost in [404, 400] {
        let opened = Mutex::new(0);
        let fake =
            FakeServer::start(move |asked| legacy_response(asked, &opened, |id| id == "s2", lost))
                .await;
        let mut prober = fake.prober(ProbeKind::Mcp);
        // The first session is not even known for its second message.
        assert!(!prober.probe().await.is_ok());
        assert_eq!(prober.probe().await, ProbeResult::Ok, "lost by {lost}");
        let before = fake.methods().len();
        assert_eq!(prober.probe().await, ProbeResult::Ok);
        assert_eq!(fake.methods().len(), before + 1);
    }
}

#[tokio::test]
async fn session_lost_between_probes_is_no_failure() {
    let (opened, asked_for) = (Mutex::new(0), Mutex::new(0));
    let fake = FakeServer::start(move |asked| {
        // The server forgets s1 after its first tools/list.
        let mut asked_for = asked_for.lock().unwrap();
        *asked_for += u32::from(asked.method() == "tools/list");
        let seen = *asked_for;
        legacy_response(asked, &opened, |id| id == "s2" || seen < 2, 404)
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..4 {
        assert_eq!(prober.probe().await, ProbeResult::Ok);
    }
    assert_eq!(fake.methods().iter().filter(|method| *method == "initialize").count(), 2);
}

#[tokio::test]
async fn probe_follows_a_protocol_change() {
    let (opened, asked_for) = (Mutex::new(0), Mutex::new(0));
    let fake = FakeServer::start(move |asked| {
        let mut count = asked_for.lock().unwrap();
        *count += 1;
        if *count > 4 {
            modern_response(asked)
        } else {
            legacy_response(asked, &opened, |_| true, 404)
        }
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..3 {
        assert_eq!(prober.probe().await, ProbeResult::Ok);
    }
    assert_eq!(fake.methods().last().map(String::as_str), Some("server/discover"));
}

#[tokio::test]
async fn server_that_hangs_on_unknown_methods_passes_the_second_probe() {
    let opened = Mutex::new(0);
    let fake = FakeServer::start(move |asked| match asked.method() {
        "server/discover" => FakeResponse::raw("").then(AfterResponse::Hang),
        _ => legacy_response(asked, &opened, |_| true, 404),
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.probe().await, ProbeResult::TimedOut);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
    assert_eq!(prober.probe().await, ProbeResult::Ok);
}

#[tokio::test]
async fn contract_of_a_legacy_server() {
    let opened = Mutex::new(0);
    let fake = FakeServer::start(move |asked| {
        // It knows two versions, and offers the newer one to those it does not know.
        if asked.method() == "initialize" && asked.body["params"]["protocolVersion"] != "2025-03-26"
        {
            let mut opened = opened.lock().unwrap();
            *opened += 1;
            let mut welcome = initialize_result(asked);
            welcome["protocolVersion"] = json!("2025-06-18");
            return FakeResponse::result(
                asked,
                &format!("mcp-session-id: s{opened}\r\n"),
                &welcome,
            );
        }
        legacy_response(asked, &opened, |_| true, 404)
    })
    .await;
    let contract = fake.prober(ProbeKind::Mcp).discover_contract(&BTreeSet::new()).await.unwrap();
    assert_eq!(contract.server, "fake 1.2");
    assert_eq!(Vec::from_iter(contract.protocols), ["2025-03-26", "2025-06-18"]);
    let capabilities = Vec::from_iter(contract.capabilities);
    assert_eq!(capabilities, ["resources", "tools", "tools.listChanged"]);
    assert_eq!(Vec::from_iter(contract.tools), ["tool1", "tool2", "tool3"]);
    assert_eq!(Vec::from_iter(contract.read_only_tools), ["tool1", "tool3"]);
    assert_eq!(fake.deleted_sessions(), 2);
}

/// A server that refuses versions that it does not know is asked for each one that sessions negotiated.
#[tokio::test]
async fn each_version_in_use_is_asked_for() {
    let opened = Mutex::new(0);
    let fake = FakeServer::start(move |asked| {
        let version = asked.body["params"]["protocolVersion"].as_str().unwrap_or_default();
        if asked.method() == "initialize" && !["2024-11-05", "2024-10-07"].contains(&version) {
            return FakeResponse::error(200, asked, -32602, "Unsupported protocol version");
        }
        legacy_response(asked, &opened, |_| true, 404)
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.discover_contract(&BTreeSet::new()).await, None);
    let in_use = ["2024-11-05", "2026-07-28"].map(str::to_owned);
    let contract = prober.discover_contract(&BTreeSet::from(in_use)).await.unwrap();
    assert_eq!(Vec::from_iter(contract.protocols), ["2024-11-05"]);
    assert_eq!(Vec::from_iter(contract.tools), ["tool1", "tool2", "tool3"]);
}

#[tokio::test]
async fn contract_includes_schemas_prompts_and_resources() {
    let fake = FakeServer::start(|asked| match asked.method() {
        "server/discover" => {
            let mut said = json!({"supportedVersions": ["2026-07-28"]});
            said["capabilities"] = json!({"tools": {}, "prompts": {}, "resources": {}});
            FakeResponse::result(asked, "", &said)
        }
        "tools/list" => {
            let input = json!({"type": "object", "required": ["city", "day"]});
            let tools = json!([{"name": "a", "inputSchema": input}, {"name": "b"}]);
            FakeResponse::result(asked, "", &json!({"tools": tools}))
        }
        "prompts/list" => {
            let arguments = json!([{"name": "who", "required": true}, {"name": "how"}]);
            let prompts = json!([{"name": "greet", "arguments": arguments}]);
            FakeResponse::result(asked, "", &json!({"prompts": prompts}))
        }
        // More than a timeline should hold.
        "resources/list" => {
            let all: Vec<_> = (0..501).map(|it| json!({"uri": format!("x://{it}")})).collect();
            FakeResponse::result(asked, "", &json!({"resources": all}))
        }
        _ => FakeResponse::error(404, asked, -32601, "Method not found"),
    })
    .await;
    let contract = fake.prober(ProbeKind::Mcp).discover_contract(&BTreeSet::new()).await.unwrap();
    let shape = &contract.tool_schemas["a"];
    assert_eq!(Vec::from_iter(&shape.required), ["city", "day"]);
    assert!(shape.input_hash.len() == 16 && shape.output_hash.is_empty());
    assert_eq!(contract.tool_schemas["b"].input_hash, "");
    assert_eq!(Vec::from_iter(&contract.prompts["greet"]), ["who"]);
    assert_eq!(Vec::from_iter(contract.incomplete), [ContractPart::Resource]);
    assert!(contract.resources.is_empty());
}

#[tokio::test]
async fn partial_contract_is_discarded() {
    let opened = Mutex::new(0);
    let fake = FakeServer::start(move |asked| match asked.method() {
        "tools/list" => FakeResponse::error(200, asked, -32603, "database is down"),
        _ => legacy_response(asked, &opened, |_| true, 404),
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.discover_contract(&BTreeSet::new()).await, None);
    assert_wrong(&prober.probe().await, "error -32603: database is down");
    assert_eq!(fake.prober(ProbeKind::Tcp).discover_contract(&BTreeSet::new()).await, None);
}

#[tokio::test]
async fn connection_refused() {
    // No other test listens at this address, so none is given the port that this frees.
    let listener = TcpListener::bind("127.41.7.2:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let missing = Address::Unix(PathBuf::from("/nonexistent/socket"));
    for address in [address, missing] {
        for kind in [ProbeKind::Mcp, http_probe(None), ProbeKind::Tcp] {
            assert_eq!(
                prober(kind.clone(), &address).probe().await,
                ProbeResult::Refused,
                "{kind:?}"
            );
        }
    }
}

/// What each answer of a broken server is worth, for both kinds that read answers.
#[tokio::test]
async fn malformed_http_responses() {
    type Make = fn() -> FakeResponse;
    let deep = || {
        let body = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        FakeResponse::with(200, "content-type: application/json\r\n", &body)
    };
    let cases: [(&str, Make, &str); 8] = [
        ("silence", || FakeResponse::raw("").then(AfterResponse::Hang), "late"),
        ("garbage", || FakeResponse::raw("\u{1}\u{2} what?\r\n\r\n"), "broke"),
        ("hung up", || FakeResponse::raw(""), "broke"),
        (
            "half headers",
            || FakeResponse::raw("HTTP/1.1 200 OK\r\ncontent-le").then(AfterResponse::Hang),
            "late",
        ),
        (
            "endless headers",
            || {
                FakeResponse::raw("HTTP/1.1 200 OK\r\n")
                    .then(AfterResponse::Repeat(b"x-more: and more\r\n".to_vec()))
            },
            "broke",
        ),
        (
            "endless body",
            || {
                FakeResponse::raw("HTTP/1.1 200 OK\r\n\r\n")
                    .then(AfterResponse::Repeat(vec![b' '; 4096]))
            },
            "longer than",
        ),
        (
            "half a body",
            || FakeResponse::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
            "broke",
        ),
        ("deep", deep, "recursion limit"),
    ];
    for (name, make, part) in cases {
        let fake = FakeServer::start(move |_| make()).await;
        for kind in [ProbeKind::Mcp, http_probe(Some(("/status", "ok")))] {
            let reply = fake.prober(kind.clone()).probe().await;
            match part {
                "late" => assert_eq!(reply, ProbeResult::TimedOut, "{name}, {kind:?}"),
                _ => assert_wrong(&reply, part),
            }
        }
    }
}

#[tokio::test]
async fn invalid_jsonrpc_responses() {
    type Make = fn(&ReceivedRequest) -> FakeResponse;
    let cases: [(Make, &str); 7] = [
        (
            |_| FakeResponse::json(200, "", &json!({"jsonrpc": "2.0", "id": 99, "result": {}})),
            "id 99",
        ),
        (|_| FakeResponse::json(200, "", &json!({"id": "1", "result": {}})), "id \"1\""),
        (|asked| FakeResponse::error(200, asked, -32603, "boom\nboom"), "error -32603: boom boom"),
        (|_| FakeResponse::with(500, "", "<html>"), "status 500"),
        (|_| FakeResponse::with(401, "", ""), "if each request needs one"),
        (|_| FakeResponse::with(202, "", ""), "status 202 without a response"),
        (|_| FakeResponse::events(": nothing\n\n"), "the body ended without a response"),
    ];
    for (make, part) in cases {
        let fake = FakeServer::start(make).await;
        assert_wrong(&fake.prober(ProbeKind::Mcp).probe().await, part);
    }
    let endless = FakeServer::start(|_| {
        FakeResponse::events("").then(AfterResponse::Repeat(b": more\n\n".repeat(512)))
    })
    .await;
    assert_wrong(&endless.prober(ProbeKind::Mcp).probe().await, "longer than 1024 KiB");
}
