//! Clients of the official SDKs, those of one kind in one process.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::harness::{RealServerHarness, WAIT_MAX};
use super::servers::{python_interpreter, rust_server, tests_dir};

/// A client that we did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    TypeScript1,
    TypeScript2,
    TypeScript2Modern,
    Python1,
    Python2,
    Python2Modern,
    Rust,
    RustModern,
}

impl ClientKind {
    pub(crate) const LEGACY: [Self; 5] =
        [Self::TypeScript1, Self::TypeScript2, Self::Python1, Self::Python2, Self::Rust];
    pub(crate) const MODERN: [Self; 3] =
        [Self::TypeScript2Modern, Self::Python2Modern, Self::RustModern];

    /// Whether it speaks the protocol without sessions.
    pub(crate) fn is_modern(self) -> bool {
        Self::MODERN.contains(&self)
    }

    fn program(self) -> (PathBuf, &'static [&'static str]) {
        match self {
            Self::TypeScript1 => ("node".into(), &["client.mjs", "1"]),
            Self::TypeScript2 | Self::TypeScript2Modern => ("node".into(), &["client.mjs", "2"]),
            Self::Python1 => (python_interpreter("1"), &["client.py", "1"]),
            Self::Python2 | Self::Python2Modern => (python_interpreter("2"), &["client.py", "2"]),
            Self::Rust | Self::RustModern => (rust_server("client"), &[]),
        }
    }
}

/// All clients of one kind, of one service. Dropping it ends them.
pub(crate) struct SdkClients {
    kind: ClientKind,
    _process: Child,
    stdin: ChildStdin,
    responses: Lines<BufReader<ChildStdout>>,
}

/// What a client threw.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: Value,
    pub(crate) data: Value,
}

impl SdkClients {
    /// No client has connected yet.
    pub(crate) fn start(stage: &RealServerHarness, kind: ClientKind) -> Self {
        let (program, arguments) = kind.program();
        let mut process = Command::new(program);
        let era = if kind.is_modern() { "modern" } else { "legacy" };
        let url = format!("http://{}/mcp", stage.listen);
        process.current_dir(tests_dir()).args(arguments).args([era, &url]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        process.stderr(stage.log_stdio());
        let process = process.spawn();
        let mut process = process.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let stdin = process.stdin.take().unwrap();
        let responses = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { kind, _process: process, stdin, responses }
    }

    /// What they are.
    pub(crate) fn kind(&self) -> ClientKind {
        self.kind
    }

    /// Connects a new client, which then listens; its session's id, where there are sessions.
    pub(crate) async fn connect(&mut self, name: &str) -> Option<String> {
        let welcome = self.expect_success(json!({"who": name, "do": "connect"})).await;
        if self.kind.is_modern() {
            assert_eq!(welcome, json!({"session": null, "stream": null}), "{:?}", self.kind);
            return None;
        }
        assert_eq!(welcome["stream"], 200, "{:?}: {welcome}", self.kind);
        Some(welcome["session"].as_str().unwrap().to_owned())
    }

    /// The names of the tools that a client is offered.
    pub(crate) async fn tools(&mut self, who: &str) -> Vec<String> {
        let tools = self.expect_success(json!({"who": who, "do": "tools"})).await;
        serde_json::from_value(tools).unwrap()
    }

    /// Has something said back.
    pub(crate) async fn echo(&mut self, who: &str) -> Result<Value, Failure> {
        let input = json!({"message": "hello"});
        self.request(json!({"who": who, "do": "call", "tool": "echo", "input": input})).await
    }

    /// The id of its session, as it last sent it.
    pub(crate) async fn id(&mut self, who: &str) -> Option<String> {
        let id = self.expect_success(json!({"who": who, "do": "id"})).await;
        id.as_str().map(str::to_owned)
    }

    /// The number of notifications that the tools changed; waits a while for the first.
    pub(crate) async fn list_changed_count(&mut self, who: &str) -> u64 {
        self.expect_success(json!({"who": who, "do": "news"})).await.as_u64().unwrap()
    }

    /// Subscribes to a resource.
    pub(crate) async fn subscribe(&mut self, who: &str, uri: &str) {
        self.expect_success(json!({"who": who, "do": "subscribe", "uri": uri})).await;
    }

    /// The number of notifications that a resource changed; waits a while for the first.
    pub(crate) async fn resource_updates(&mut self, who: &str) -> u64 {
        self.expect_success(json!({"who": who, "do": "updated"})).await.as_u64().unwrap()
    }

    /// Starts a call that takes some seconds; the server is at work on it on return.
    pub(crate) async fn begin_call(&mut self, who: &str, tool: &str, seconds: u32) {
        let input = json!({"duration": seconds, "steps": 10 * seconds});
        self.expect_success(json!({"who": who, "do": "begin", "tool": tool, "input": input})).await;
    }

    /// Waits for what was begun.
    pub(crate) async fn finish_call(&mut self, who: &str) -> Result<Value, Failure> {
        self.request(json!({"who": who, "do": "finish"})).await
    }

    /// Has a client call all the time: about every `every_ms` milliseconds, with calls to a `slow` tool and
    /// cancelled ones, and with a new session after `stay` calls.
    pub(crate) async fn work(&mut self, who: &str, every_ms: u32, slow: Option<&str>, stay: u32) {
        let work = json!({"who": who, "do": "work", "every": every_ms, "slow": slow, "stay": stay});
        self.expect_success(work).await;
    }

    /// Ends what [`Self::work`] began; what the client saw.
    pub(crate) async fn rest(&mut self, who: &str) -> Value {
        self.expect_success(json!({"who": who, "do": "rest"})).await
    }

    /// Leaves, and ends its session where the SDK does so.
    pub(crate) async fn close(&mut self, who: &str) {
        self.expect_success(json!({"who": who, "do": "close"})).await;
    }

    async fn expect_success(&mut self, question: Value) -> Value {
        let answer = self.request(question.clone()).await;
        answer.unwrap_or_else(|failure| panic!("{:?}: {question}: {failure:?}", self.kind))
    }

    async fn request(&mut self, question: Value) -> Result<Value, Failure> {
        let kind = self.kind;
        self.stdin.write_all(format!("{question}\n").as_bytes()).await.unwrap();
        let answer = timeout(WAIT_MAX, self.responses.next_line()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{kind:?}: no answer to {question}"));
        let answer = answer.unwrap().unwrap_or_else(|| panic!("{kind:?} ended at {question}"));
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        let message = answer.get("error").and_then(Value::as_str).map(str::to_owned);
        match message {
            Some(message) => {
                let (code, data) = (answer["code"].take(), answer["data"].take());
                Err(Failure { message, code, data })
            }
            None => Ok(answer["ok"].take()),
        }
    }
}
