//! The HTTP+SSE transport (2024-11-05): a session is a stream, and its client posts elsewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rollbackd::config::Address;
use rollbackd::model::{Counts, Moment};
use rollbackd::proxy::Proxy;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::fake_backend::{read_request, scripted};
use crate::http_client::{HttpResponse, RawConnection, send_raw, sse_messages, tool_call};
use crate::{RELEASE_A, RELEASE_B, proxy_to, wait_for_counts, wait_until};

type Streams = Arc<Mutex<BTreeMap<String, mpsc::Sender<String>>>>;

/// A server of this transport. `at` is what precedes the path in the `endpoint` event.
pub(crate) async fn sse_server(name: &'static str, at: fn(SocketAddr) -> String) -> SocketAddr {
    let streams = Streams::default();
    let own: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
    let known = Arc::clone(&own);
    let address = scripted(move |mut stream| {
        let (streams, own) = (Arc::clone(&streams), Arc::clone(&known));
        async move {
            while let Some((head, body)) = read_request(&mut stream).await {
                if head.starts_with("GET /sse ") {
                    let (tell, mut told) = mpsc::channel(16);
                    let id = format!("{name}-{}", streams.lock().unwrap().len());
                    let before = at(own.lock().unwrap().unwrap());
                    streams.lock().unwrap().insert(id.clone(), tell);
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                                Transfer-Encoding: chunked\r\n\r\n";
                    let first =
                        format!("event: endpoint\ndata: {before}/messages?session={id}\n\n");
                    let mut next = Some(format!("{head}{}", chunk(&first)));
                    while let Some(text) = next {
                        if stream.write_all(text.as_bytes()).await.is_err() {
                            break;
                        }
                        next = told.recv().await.filter(|it| it != "break").map(|it| chunk(&it));
                    }
                    streams.lock().unwrap().remove(&id);
                    return;
                }
                let id = head.split("session=").nth(1).and_then(|it| it.split(' ').next());
                if String::from_utf8_lossy(&body).contains(r#""name":"hang""#) {
                    std::future::pending::<()>().await;
                }
                let session = id.and_then(|id| streams.lock().unwrap().get(id).cloned());
                let message: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
                let status = match &session {
                    Some(_) if message["jsonrpc"] == "2.0" => "202 Accepted",
                    Some(_) => "400 Bad Request",
                    None => "404 Not Found",
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nOK");
                let _ = stream.write_all(answer.as_bytes()).await;
                if let (Some(session), Some(event)) = (session, answer_event(name, &message)) {
                    let _ = session.send(event).await;
                }
            }
        }
    })
    .await;
    *own.lock().unwrap() = Some(address);
    address
}

/// What the server sends on the stream for a message.
fn answer_event(name: &str, message: &serde_json::Value) -> Option<String> {
    let (id, tool) = (&message["id"], message["params"]["name"].as_str());
    let body = match tool {
        _ if id.is_null() => return None,
        Some("silent") => return None,
        Some("break") => return Some("break".to_owned()),
        Some("fail") => r#""error":{"code":-32603,"message":"x"}"#.to_owned(),
        _ => format!(r#""result":{{"release":"{name}"}}"#),
    };
    Some(format!("event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},{body}}}\n\n"))
}

pub(crate) fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

pub(crate) fn relative(_: SocketAddr) -> String {
    String::new()
}

/// A client: its stream, and where it posts.
pub(crate) struct Client {
    pub(crate) stream: RawConnection,
    pub(crate) endpoint: String,
    to: SocketAddr,
}

impl Client {
    pub(crate) async fn open(to: SocketAddr) -> Self {
        let mut stream = RawConnection::connect(to).await;
        stream.send(get_stream("")).await;
        assert_eq!(stream.read_head().await.0, 200);
        let event = stream.read_until("\n\n").await;
        let endpoint = event.strip_prefix("event: endpoint\ndata: ").unwrap().trim().to_owned();
        Self { stream, endpoint, to }
    }

    pub(crate) async fn post(&self, body: &str) -> HttpResponse {
        send_raw(self.to, &self.post_text(body)).await
    }

    pub(crate) fn post_text(&self, body: &str) -> String {
        let head = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", self.endpoint);
        let kind = "Content-Type: application/json\r\n";
        let length = body.len();
        format!("{head}{kind}Content-Length: {length}\r\n\r\n{body}")
    }

    pub(crate) async fn call(&mut self, id: &str, tool: &str) -> serde_json::Value {
        assert_eq!(self.post(&tool_call(id, tool, "{}")).await.status, 202);
        let event = self.stream.read_until("\n\n").await;
        sse_messages(&event).remove(0)
    }
}

/// The GET of a stream; `headers` are whole lines.
pub(crate) fn get_stream(headers: &str) -> String {
    let accept = "Accept: text/event-stream\r\n";
    format!("GET /sse HTTP/1.1\r\nHost: localhost\r\n{accept}{headers}\r\n")
}

fn sessions(proxy: &Proxy) -> [u64; 2] {
    [RELEASE_A, RELEASE_B].map(|it| proxy.load(it, Moment(0)).sessions)
}

#[tokio::test]
async fn a_session_stays_at_the_release_that_holds_its_stream() {
    let (a, b) = (sse_server("a", relative).await, sse_server("b", relative).await);
    let proxy = proxy_to(a);
    proxy.add_release(RELEASE_B, &Address::Tcp(b));
    let mut old = Client::open(proxy.local_addr()).await;
    assert_eq!(old.call("1", "echo").await["result"]["release"], "a");
    proxy.set_active(RELEASE_B);
    let mut new = Client::open(proxy.local_addr()).await;
    assert_eq!(new.call("1", "echo").await["result"]["release"], "b");
    assert_eq!(old.call("2", "echo").await["result"]["release"], "a");
    assert_eq!(sessions(&proxy), [1, 1]);
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).pinned, 1);
    wait_for_counts(&proxy, RELEASE_A, Counts { ok: 2, ..Counts::default() }).await;
    wait_for_counts(&proxy, RELEASE_B, Counts { ok: 1, ..Counts::default() }).await;
    // A drain waits for it, until it ends.
    let draining = proxy.clone();
    let drain =
        tokio::spawn(async move { draining.drain(RELEASE_A, Duration::from_mins(1)).await });
    assert_eq!(old.call("3", "echo").await["result"]["release"], "a");
    assert!(!drain.is_finished());
    drop(old);
    drain.await.unwrap();
    assert_eq!(new.call("2", "echo").await["result"]["release"], "b");
    drop(new);
    wait_until("all ended", || sessions(&proxy) == [0, 0], || format!("{:?}", sessions(&proxy)))
        .await;
}

#[tokio::test]
async fn answers_on_the_stream_are_outcomes() {
    let proxy = proxy_to(sse_server("a", relative).await);
    let mut client = Client::open(proxy.local_addr()).await;
    assert_eq!(client.call("1", "echo").await["id"], 1);
    assert_eq!(client.call("\"x\"", "fail").await["error"]["code"], -32603);
    let want = Counts { ok: 1, server_fault: 1, ..Counts::default() };
    wait_for_counts(&proxy, RELEASE_A, want).await;
    let failed: Vec<_> = proxy.failed_calls().into_iter().map(|(_, it)| it.message).collect();
    assert_eq!(failed, ["x"]);
    // Neither a notification nor a cancelled request has an answer; broken JSON is the client's.
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(client.post(note).await.status, 202);
    assert_eq!(client.post(&tool_call("3", "silent", "{}")).await.status, 202);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
    assert_eq!(client.post(cancel).await.status, 202);
    let want = Counts { neutral: 1, ..want };
    wait_for_counts(&proxy, RELEASE_A, want).await;
    // One that is open when the stream breaks has an error, and is the fault of the release.
    assert_eq!(client.post(&tool_call("4", "silent", "{}")).await.status, 202);
    assert_eq!(client.post(&tool_call("5", "break", "{}")).await.status, 202);
    let errors = sse_messages(&client.stream.read_to_end().await);
    assert_eq!(errors.iter().map(|it| &it["id"]).collect::<Vec<_>>(), [4, 5]);
    let counts = || proxy.counts(RELEASE_A);
    wait_until("both failed", || counts().server_fault == 3, || format!("{:?}", counts())).await;
    // The session is over.
    assert_eq!(client.post(&tool_call("6", "echo", "{}")).await.status, 404);
    assert_eq!(counts().server_fault, 3);
}

#[tokio::test]
async fn a_client_that_leaves_blames_no_one() {
    let proxy = proxy_to(sse_server("a", relative).await);
    let client = Client::open(proxy.local_addr()).await;
    assert_eq!(client.post(&tool_call("1", "silent", "{}")).await.status, 202);
    drop(client);
    wait_for_counts(
        &proxy,
        RELEASE_A,
        Counts { neutral: 1, streams_ended: 1, ..Counts::default() },
    )
    .await;
}

#[tokio::test]
async fn a_cut_tells_the_client_what_became_of_its_requests() {
    let proxy = proxy_to(sse_server("a", relative).await);
    let mut client = Client::open(proxy.local_addr()).await;
    assert_eq!(client.post(&tool_call("1", "silent", "{}")).await.status, 202);
    let cost = proxy.cut(RELEASE_A).await;
    assert_eq!(cost.sessions_ended, 1);
    let messages = sse_messages(&client.stream.read_to_end().await);
    let answer = messages.iter().find(|it| it["id"] == 1).unwrap();
    assert_eq!(answer["error"]["data"]["reason"], "rollback");
    wait_for_counts(
        &proxy,
        RELEASE_A,
        Counts { neutral: 1, streams_ended: 1, ..Counts::default() },
    )
    .await;
}

#[tokio::test]
async fn a_url_that_names_the_slot_is_one_that_the_client_can_reach() {
    let proxy = proxy_to(sse_server("a", |own| format!("http://{own}")).await);
    let mut client = Client::open(proxy.local_addr()).await;
    assert!(client.endpoint.starts_with("/messages?session="), "{}", client.endpoint);
    assert_eq!(client.call("1", "echo").await["result"]["release"], "a");
}
