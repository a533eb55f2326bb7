//! Clients of the official TypeScript SDK, in one process of node.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::stage::{SOON, Stage, real};

/// All clients of one service. Dropping it ends them.
pub(crate) struct Clients {
    _node: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// What a client threw.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) code: Value,
}

impl Clients {
    /// Nobody has connected yet.
    pub(crate) fn start(stage: &Stage) -> Self {
        let mut node = Command::new("node");
        node.current_dir(real()).arg("client.mjs").arg(format!("http://{}/mcp", stage.listen));
        node.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut node = node.spawn().expect("node is not installed; run tests/run, which does it");
        let stdin = node.stdin.take().unwrap();
        let answers = BufReader::new(node.stdout.take().unwrap()).lines();
        Self { _node: node, stdin, answers }
    }

    /// Connects a new client, which then has a session and a stream; its session's id.
    pub(crate) async fn connect(&mut self, who: &str) -> String {
        let welcome = self.ask(json!({"who": who, "do": "connect"})).await.unwrap();
        assert_eq!(welcome["stream"], 200, "{welcome}");
        welcome["session"].as_str().unwrap().to_owned()
    }

    /// The names of the tools that a client is offered.
    pub(crate) async fn tools(&mut self, who: &str) -> Vec<String> {
        let tools = self.ask(json!({"who": who, "do": "tools"})).await.unwrap();
        serde_json::from_value(tools).unwrap()
    }

    /// Has something said back.
    pub(crate) async fn echo(&mut self, who: &str) -> Result<Value, Failure> {
        let input = json!({"message": "hello"});
        self.ask(json!({"who": who, "do": "call", "tool": "echo", "input": input})).await
    }

    /// The id of its session.
    pub(crate) async fn id(&mut self, who: &str) -> String {
        let id = self.ask(json!({"who": who, "do": "id"})).await.unwrap();
        id.as_str().unwrap().to_owned()
    }

    /// How often it heard that the tools changed; waits a while for the first time.
    pub(crate) async fn news(&mut self, who: &str) -> u64 {
        self.ask(json!({"who": who, "do": "news"})).await.unwrap().as_u64().unwrap()
    }

    /// Starts a call that takes some seconds; the server is at work on it on return.
    pub(crate) async fn begin(&mut self, who: &str, tool: &str, seconds: u32) {
        let input = json!({"duration": seconds, "steps": 10 * seconds});
        let begin = json!({"who": who, "do": "begin", "tool": tool, "input": input});
        self.ask(begin).await.unwrap();
    }

    /// Waits for what was begun.
    pub(crate) async fn finish(&mut self, who: &str) -> Result<Value, Failure> {
        self.ask(json!({"who": who, "do": "finish"})).await
    }

    async fn ask(&mut self, question: Value) -> Result<Value, Failure> {
        self.stdin.write_all(format!("{question}\n").as_bytes()).await.unwrap();
        let answer = timeout(SOON, self.answers.next_line()).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {question}")).unwrap();
        let mut answer: Value = serde_json::from_str(&answer.expect("node ended")).unwrap();
        match answer.get("error").and_then(Value::as_str) {
            Some(message) => {
                Err(Failure { message: message.to_owned(), code: answer["code"].take() })
            }
            None => Ok(answer["ok"].take()),
        }
    }
}
