//! The HTTP+SSE transport (2024-11-05), with a server and clients that we did not write.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::harness::{RealServerHarness, WAIT_MAX};
use super::servers::{NEW_SLOW, OLD_SLOW, ServerKind, python_interpreter, tests_dir};

const SETTINGS: &str = r#"
    path = "/sse"
    drain_timeout = "2s"
    stop_timeout = "2s"
    probe = { kind = "tcp" }
"#;

/// A client with its session.
struct SseClient {
    _process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl SseClient {
    fn connect(stage: &RealServerHarness, program: PathBuf, script: &str) -> Self {
        let mut process = Command::new(program);
        process.current_dir(tests_dir()).arg(script).arg(format!("http://{}/sse", stage.listen));
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = process.stderr(stage.log_stdio()).spawn().unwrap();
        let stdin = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, stdin, lines }
    }

    /// The names of the tools.
    async fn tools(&mut self) -> Value {
        self.stdin.write_all(b"\n").await.unwrap();
        let line = timeout(WAIT_MAX, self.lines.next_line()).await.unwrap();
        serde_json::from_str(&line.unwrap().unwrap()).unwrap()
    }
}

fn has(tools: &Value, name: &str) -> bool {
    tools.as_array().is_some_and(|tools| tools.iter().any(|it| it == name))
}

#[tokio::test]
async fn a_session_of_http_sse_stays_where_its_stream_is() {
    let stage = RealServerHarness::start(ServerKind::EverythingSse, SETTINGS).await;
    let deployed = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(deployed.code, 0, "{deployed:?}");
    let programs = || {
        [(PathBuf::from("node"), "sse_client.mjs"), { (python_interpreter("1"), "sse_client.py") }]
    };
    let mut before = Vec::new();
    for (program, script) in programs() {
        let mut client = SseClient::connect(&stage, program, script);
        let tools = client.tools().await;
        assert!(has(&tools, OLD_SLOW), "{script}: {tools}");
        before.push(client);
    }
    let deployed = stage.deploy_new("v2", &[]).await;
    assert_eq!(deployed.code, 0, "{deployed:?}");
    stage.wait_for_status("active", "v2").await;
    for (program, script) in programs() {
        let mut client = SseClient::connect(&stage, program, script);
        let tools = client.tools().await;
        assert!(has(&tools, NEW_SLOW), "{script}: {tools}");
    }
    for client in &mut before {
        let tools = client.tools().await;
        assert!(has(&tools, OLD_SLOW), "{tools}");
    }
    let status = stage.status().await;
    let releases = status["releases"].as_array().unwrap();
    let warm = releases.iter().find(|it| it["version"] == "v1").unwrap();
    assert_eq!(warm["sse_sessions"], 2, "{status}");
    assert!(warm["counts"]["ok"].as_u64() >= Some(6), "{status}");
    for release in releases {
        assert_eq!(release["counts"]["server_fault"], 0, "{status}");
    }
}
