//! Probes against servers that answer well, badly, late, or not at all.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

mod fake;
mod lost;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::{Address, Probe, ProbeKind};
use rollbackd::model::{Number, Part, Release, Reply, Slot};
use rollbackd::signal::Prober;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};

use fake::{Asked, Fake, Log, Said, Then, legacy, modern, serve, welcome};

impl Fake {
    fn prober(&self, kind: ProbeKind) -> Prober {
        prober(kind, &self.address)
    }
}

fn prober(kind: ProbeKind, address: &Address) -> Prober {
    let timeout = Duration::from_millis(if cfg!(debug_assertions) { 1500 } else { 800 });
    let probe = Probe { kind, every: Duration::from_secs(1), timeout, ready: 3 };
    let release = Release {
        version: "v2".into(),
        number: Number(7),
        slot: Slot("green".into()),
        artifact: None,
        digest: None,
        set: BTreeMap::new(),
    };
    Prober::new(&probe, "/mcp", address, &release)
}

fn http(field: Option<(&str, &str)>) -> ProbeKind {
    let field = field.map(|(pointer, value)| (pointer.to_owned(), value.to_owned()));
    ProbeKind::Http { path: "/health".into(), status: 200, field }
}

fn wrong(reply: &Reply, part: &str) {
    assert!(
        matches!(reply, Reply::Wrong(what) if what.contains(part)),
        "{reply:?} without {part:?}"
    );
}

#[tokio::test]
async fn a_legacy_server_gets_one_session() {
    let opened = Mutex::new(0);
    let fake = Fake::start(move |asked| legacy(asked, &opened, |_| true, 404)).await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..3 {
        assert_eq!(prober.ask().await, Reply::Ok);
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
    assert_eq!(fake.deleted(), 1);
    let log = fake.log.lock().unwrap();
    let last = log.last().unwrap();
    assert_eq!(last.header("mcp-session-id"), Some("s1"));
    assert_eq!(last.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(last.header("user-agent"), Some("rollbackd-probe"));
    assert_eq!(log[0].header("accept"), Some("application/json, text/event-stream"));
}

#[tokio::test]
async fn a_legacy_server_may_answer_with_events_and_leave_the_stream_open() {
    let fake = Fake::start(|asked| {
        if asked.verb == "DELETE" || asked.method().starts_with("notifications/") {
            return Said::with(202, "", "");
        }
        let result = match asked.method() {
            "initialize" => welcome(asked),
            "tools/list" => json!({"tools": []}),
            _ => return Said::error(400, asked, -32000, "Server not initialized"),
        };
        let answer = json!({"jsonrpc": "2.0", "id": asked.body["id"], "result": result});
        let other = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
        let events = format!(
            "id: 0\ndata:\n\n: hello\ndata: {other}\r\n\r\nevent: message\ndata: {answer}\n\n"
        );
        Said::events(&events).then(Then::Hang)
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.ask().await, Reply::Ok);
    assert_eq!(prober.ask().await, Reply::Ok);
}

#[tokio::test]
async fn a_modern_server_is_asked_in_its_words() {
    let fake = Fake::start(modern).await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.ask().await, Reply::Ok);
    assert_eq!(prober.ask().await, Reply::Ok);
    assert_eq!(fake.methods(), ["server/discover", "server/discover"]);
    let contract = prober.contract().await.unwrap();
    assert_eq!(contract.server, "new 3");
    assert_eq!(Vec::from_iter(contract.protocols), ["2026-07-28"]);
    assert_eq!(Vec::from_iter(contract.capabilities), ["tools"]);
    assert_eq!(Vec::from_iter(contract.tools), ["tool1", "tool2", "tool3"]);
    assert_eq!(Vec::from_iter(contract.safe_tools), ["tool1", "tool3"]);
}

#[tokio::test]
async fn a_lost_session_is_opened_again() {
    for lost in [404, 400] {
        let opened = Mutex::new(0);
        let fake = Fake::start(move |asked| legacy(asked, &opened, |id| id == "s2", lost)).await;
        let mut prober = fake.prober(ProbeKind::Mcp);
        // The first session is not even known for its second message.
        assert!(!prober.ask().await.is_ok());
        assert_eq!(prober.ask().await, Reply::Ok, "lost by {lost}");
        let before = fake.methods().len();
        assert_eq!(prober.ask().await, Reply::Ok);
        assert_eq!(fake.methods().len(), before + 1);
    }
}

#[tokio::test]
async fn a_session_lost_between_two_probes_is_no_failure() {
    let (opened, asked_for) = (Mutex::new(0), Mutex::new(0));
    let fake = Fake::start(move |asked| {
        // The server forgets s1 after its first tools/list.
        let mut asked_for = asked_for.lock().unwrap();
        *asked_for += u32::from(asked.method() == "tools/list");
        let seen = *asked_for;
        legacy(asked, &opened, |id| id == "s2" || seen < 2, 404)
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..4 {
        assert_eq!(prober.ask().await, Reply::Ok);
    }
    assert_eq!(fake.methods().iter().filter(|method| *method == "initialize").count(), 2);
}

#[tokio::test]
async fn a_server_that_changes_its_era_is_followed() {
    let (opened, asked_for) = (Mutex::new(0), Mutex::new(0));
    let fake = Fake::start(move |asked| {
        let mut count = asked_for.lock().unwrap();
        *count += 1;
        if *count > 4 { modern(asked) } else { legacy(asked, &opened, |_| true, 404) }
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    for _ in 0..3 {
        assert_eq!(prober.ask().await, Reply::Ok);
    }
    assert_eq!(fake.methods().last().map(String::as_str), Some("server/discover"));
}

#[tokio::test]
async fn a_server_that_hangs_on_unknown_words_is_found_by_the_second_probe() {
    let opened = Mutex::new(0);
    let fake = Fake::start(move |asked| match asked.method() {
        "server/discover" => Said::raw("").then(Then::Hang),
        _ => legacy(asked, &opened, |_| true, 404),
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.ask().await, Reply::Late);
    assert_eq!(prober.ask().await, Reply::Ok);
    assert_eq!(prober.ask().await, Reply::Ok);
}

#[tokio::test]
async fn the_contract_of_a_legacy_server() {
    let opened = Mutex::new(0);
    let fake = Fake::start(move |asked| {
        // It knows two versions, and offers the newer one to those it does not know.
        if asked.method() == "initialize" && asked.body["params"]["protocolVersion"] != "2025-03-26"
        {
            let mut opened = opened.lock().unwrap();
            *opened += 1;
            let mut welcome = welcome(asked);
            welcome["protocolVersion"] = json!("2025-06-18");
            return Said::result(asked, &format!("mcp-session-id: s{opened}\r\n"), &welcome);
        }
        legacy(asked, &opened, |_| true, 404)
    })
    .await;
    let contract = fake.prober(ProbeKind::Mcp).contract().await.unwrap();
    assert_eq!(contract.server, "fake 1.2");
    assert_eq!(Vec::from_iter(contract.protocols), ["2025-03-26", "2025-06-18"]);
    let capabilities = Vec::from_iter(contract.capabilities);
    assert_eq!(capabilities, ["resources", "tools", "tools.listChanged"]);
    assert_eq!(Vec::from_iter(contract.tools), ["tool1", "tool2", "tool3"]);
    assert_eq!(Vec::from_iter(contract.safe_tools), ["tool1", "tool3"]);
    assert_eq!(fake.deleted(), 2);
}

#[tokio::test]
async fn a_contract_tells_schemas_prompts_and_resources() {
    let fake = Fake::start(|asked| match asked.method() {
        "server/discover" => {
            let mut said = json!({"supportedVersions": ["2026-07-28"]});
            said["capabilities"] = json!({"tools": {}, "prompts": {}, "resources": {}});
            Said::result(asked, "", &said)
        }
        "tools/list" => {
            let input = json!({"type": "object", "required": ["city", "day"]});
            let tools = json!([{"name": "a", "inputSchema": input}, {"name": "b"}]);
            Said::result(asked, "", &json!({"tools": tools}))
        }
        "prompts/list" => {
            let arguments = json!([{"name": "who", "required": true}, {"name": "how"}]);
            let prompts = json!([{"name": "greet", "arguments": arguments}]);
            Said::result(asked, "", &json!({"prompts": prompts}))
        }
        // More than a timeline should hold.
        "resources/list" => {
            let all: Vec<_> = (0..501).map(|it| json!({"uri": format!("x://{it}")})).collect();
            Said::result(asked, "", &json!({"resources": all}))
        }
        _ => Said::error(404, asked, -32601, "Method not found"),
    })
    .await;
    let contract = fake.prober(ProbeKind::Mcp).contract().await.unwrap();
    let shape = &contract.shapes["a"];
    assert_eq!(Vec::from_iter(&shape.required), ["city", "day"]);
    assert!(shape.input.len() == 16 && shape.output.is_empty());
    assert_eq!(contract.shapes["b"].input, "");
    assert_eq!(Vec::from_iter(&contract.prompts["greet"]), ["who"]);
    assert_eq!(Vec::from_iter(contract.unknown), [Part::Resource]);
    assert!(contract.resources.is_empty());
}

#[tokio::test]
async fn half_a_contract_is_none() {
    let opened = Mutex::new(0);
    let fake = Fake::start(move |asked| match asked.method() {
        "tools/list" => Said::error(200, asked, -32603, "database is down"),
        _ => legacy(asked, &opened, |_| true, 404),
    })
    .await;
    let mut prober = fake.prober(ProbeKind::Mcp);
    assert_eq!(prober.contract().await, None);
    wrong(&prober.ask().await, "error -32603: database is down");
    assert_eq!(fake.prober(ProbeKind::Tcp).contract().await, None);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    drop(listener);
    let missing = Address::Unix(PathBuf::from("/nonexistent/socket"));
    for address in [address, missing] {
        for kind in [ProbeKind::Mcp, http(None), ProbeKind::Tcp] {
            assert_eq!(prober(kind.clone(), &address).ask().await, Reply::Refused, "{kind:?}");
        }
    }
}

/// What each answer of a broken server is worth, for both kinds that read answers.
#[tokio::test]
async fn broken_answers() {
    type Make = fn() -> Said;
    let deep = || {
        let body = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        Said::with(200, "content-type: application/json\r\n", &body)
    };
    let cases: [(&str, Make, &str); 8] = [
        ("silence", || Said::raw("").then(Then::Hang), "late"),
        ("garbage", || Said::raw("\u{1}\u{2} what?\r\n\r\n"), "broke"),
        ("hung up", || Said::raw(""), "broke"),
        ("half headers", || Said::raw("HTTP/1.1 200 OK\r\ncontent-le").then(Then::Hang), "late"),
        (
            "endless headers",
            || {
                Said::raw("HTTP/1.1 200 OK\r\n")
                    .then(Then::Repeat(b"x-more: and more\r\n".to_vec()))
            },
            "broke",
        ),
        (
            "endless body",
            || Said::raw("HTTP/1.1 200 OK\r\n\r\n").then(Then::Repeat(vec![b' '; 4096])),
            "longer than",
        ),
        ("half a body", || Said::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "broke"),
        ("deep", deep, "recursion limit"),
    ];
    for (name, make, part) in cases {
        let fake = Fake::start(move |_| make()).await;
        for kind in [ProbeKind::Mcp, http(Some(("/status", "ok")))] {
            let reply = fake.prober(kind.clone()).ask().await;
            match part {
                "late" => assert_eq!(reply, Reply::Late, "{name}, {kind:?}"),
                _ => wrong(&reply, part),
            }
        }
    }
}

#[tokio::test]
async fn wrong_words() {
    type Make = fn(&Asked) -> Said;
    let cases: [(Make, &str); 7] = [
        (|_| Said::json(200, "", &json!({"jsonrpc": "2.0", "id": 99, "result": {}})), "id 99"),
        (|_| Said::json(200, "", &json!({"id": "1", "result": {}})), "id \"1\""),
        (|asked| Said::error(200, asked, -32603, "boom\nboom"), "error -32603: boom boom"),
        (|_| Said::with(500, "", "<html>"), "status 500"),
        (|_| Said::with(401, "", ""), "wants a token"),
        (|_| Said::with(202, "", ""), "status 202 without an answer"),
        (|_| Said::events(": nothing\n\n"), "the stream ended without an answer"),
    ];
    for (make, part) in cases {
        let fake = Fake::start(make).await;
        wrong(&fake.prober(ProbeKind::Mcp).ask().await, part);
    }
    let endless =
        Fake::start(|_| Said::events("").then(Then::Repeat(b": more\n\n".repeat(512)))).await;
    wrong(&endless.prober(ProbeKind::Mcp).ask().await, "1024 KiB without an answer");
}

#[tokio::test]
async fn a_plain_get() {
    let body = json!({"status": "ok", "checks": {"left": 3}});
    let fake = Fake::start(move |_| Said::json(200, "", &body)).await;
    assert_eq!(fake.prober(http(None)).ask().await, Reply::Ok);
    assert_eq!(fake.prober(http(Some(("/status", "ok")))).ask().await, Reply::Ok);
    assert_eq!(fake.prober(http(Some(("/checks/left", "3")))).ask().await, Reply::Ok);
    wrong(&fake.prober(http(Some(("/status", "up")))).ask().await, "/status is \"ok\", not \"up\"");
    wrong(&fake.prober(http(Some(("/up", "up")))).ask().await, "has no /up");
    let moved = Fake::start(|_| Said::with(307, "location: /elsewhere\r\n", "")).await;
    wrong(&moved.prober(http(None)).ask().await, "status 307, not 200");
    assert_eq!(moved.log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mcp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let log = Log::default();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(socket, Arc::clone(&log), Arc::new(modern)));
        }
    });
    let address = Address::Unix(path);
    assert_eq!(prober(ProbeKind::Mcp, &address).ask().await, Reply::Ok);
    assert_eq!(prober(ProbeKind::Tcp, &address).ask().await, Reply::Ok);
    assert!(prober(ProbeKind::Mcp, &address).contract().await.is_some());
}

#[tokio::test]
async fn a_command() {
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 4001)));
    let run = |script: &str| {
        let argv = ["/bin/sh", "-c", script, "{port}", "{slot}", "{version}"];
        let kind = ProbeKind::Command(argv.map(str::to_owned).to_vec());
        let mut prober = prober(kind, &address);
        async move { prober.ask().await }
    };
    assert_eq!(run("test $0-$1-$2 = 4001-green-v2").await, Reply::Ok);
    wrong(&run("echo noise; exit 3").await, "exit code 3");
    wrong(&run("kill -9 $$").await, "signal 9");
    let missing = ProbeKind::Command(vec!["/nonexistent/probe".into()]);
    wrong(&prober(missing, &address).ask().await, "did not start");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 60 & echo $! > {}; wait", file.display());
    let kind = ProbeKind::Command(vec!["/bin/sh".into(), "-c".into(), script]);
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 4001)));
    assert_eq!(prober(kind, &address).ask().await, Reply::Late);
    let child = std::fs::read_to_string(file).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    for _ in 0..100 {
        match std::fs::read_to_string(&stat) {
            Ok(stat) if !stat.contains(") Z ") => {}
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the child of the probe command is still alive");
}
