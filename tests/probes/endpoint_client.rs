//! The client of `rollbackd probe`, against the demo server.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rollbackd::demo::server::{self, ScheduledFault, ServerSettings};
use rollbackd::model::Moment;
use rollbackd::signal::{EndpointClient, EndpointRequest};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

const TIMEOUT: Duration = Duration::from_secs(5);

struct DemoServer {
    url: String,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl DemoServer {
    async fn start(address: &str, fault: Option<&str>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = fault.map(|it| ScheduledFault { fault: it.parse().unwrap(), at: Moment(0) });
        let version = "v7".to_owned();
        let settings = ServerSettings { version, fault, hidden_tool: None, outage_file: None };
        let task = tokio::spawn(server::serve(listener, settings));
        Self { url: format!("http://{address}/mcp"), address, task }
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn weather() -> EndpointRequest {
    EndpointRequest::Call { tool: "weather".to_owned(), arguments: json!({ "city": "Oslo" }) }
}

#[tokio::test]
async fn an_endpoint_is_asked_and_a_tool_is_called() {
    let server = DemoServer::start("127.0.0.1:0", None).await;
    let mut client = EndpointClient::new(&server.url, TIMEOUT).unwrap();
    let named = client.request(&EndpointRequest::Probe).await.unwrap();
    assert_eq!(named, "rollbackd-demo-weather v7");
    for _ in 0..2 {
        let said = client.request(&weather()).await.unwrap();
        assert!(said.ends_with("dry, says v7"), "{said}");
    }
    let unknown = EndpointRequest::Call { tool: "nope".to_owned(), arguments: json!({}) };
    let error = client.request(&unknown).await.unwrap_err();
    assert!(error.contains("-32602") && error.contains("nope"), "{error}");
    assert_eq!(client.sessions_lost(), 0);
    client.close().await;
}

#[tokio::test]
async fn a_failed_tool_and_a_dead_server_are_failures() {
    // An address of its own: on 127.0.0.1 a test beside it may be given the port that this frees.
    let mut server = DemoServer::start("127.41.7.1:0", Some("tool-errors")).await;
    let mut client = EndpointClient::new(&server.url, TIMEOUT).unwrap();
    let error = client.request(&weather()).await.unwrap_err();
    assert!(error.starts_with("the result has isError: the weather service"), "{error}");
    server.task.abort();
    let _ = (&mut server.task).await;
    let address = server.address;
    let mut client = EndpointClient::new(&format!("http://{address}/mcp"), TIMEOUT).unwrap();
    let error = client.request(&weather()).await.unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn the_verb_prints_a_line_and_its_exit_code_is_the_outcome() {
    let server = DemoServer::start("127.0.0.1:0", None).await;
    let verb = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
        command.arg("probe").arg(&server.url).args(arguments).stdin(Stdio::null());
        command.kill_on_drop(true).output().await.unwrap()
    };
    let good = verb(&["--tool", "echo", "--arguments", r#"{"message": "hello"}"#]).await;
    assert_eq!((good.stdout, good.status.code()), (b"ok: hello\n".to_vec(), Some(0)));
    let bad = verb(&["--tool", "echo"]).await;
    let text = String::from_utf8(bad.stdout).unwrap();
    assert!(text.starts_with("FAILED: the result has isError: "), "{text}");
    assert_eq!(bad.status.code(), Some(1));
    let wrong = [
        &["--tool", "echo", "--arguments", "[]"][..],
        &["--arguments", "{}"],
        &["--rate", "2"],
        &["--reconnect"],
    ];
    for wrong in wrong {
        assert_eq!(verb(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}
