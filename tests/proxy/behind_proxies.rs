//! What a release learns of its clients behind other proxies, and what its URLs become on the way
//! back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rollbackd::config::{Address, Service};
use rollbackd::proxy::Proxy;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::fake_backend::{FakeMcpServer, fixed_response, json_answer, read_request, scripted};
use crate::http_client::{HttpResponse, header, open_session, post, request, send_raw, tool_call};
use crate::{RELEASE_A, proxy_to, proxy_with, start};

const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
const ORIGIN: &str = "https://app.example.org";

/// A service that also listens for the names of this text in `[service.test]`.
fn service_with(settings: &str) -> Service {
    let text = format!(
        "[service.test]\nlisten = \"127.0.0.1:0\"\nruntime = \"external\"\n{settings}\n\
         slots = {{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }}\n"
    );
    rollbackd::config::parse("test.toml", &text).unwrap().settings.services.remove("test").unwrap()
}

/// A release that answers every request, and the head of the last one.
async fn recording() -> (SocketAddr, Arc<Mutex<String>>) {
    let last: Arc<Mutex<String>> = Arc::default();
    let written = Arc::clone(&last);
    let address = scripted(move |stream| record(stream, Arc::clone(&written))).await;
    (address, last)
}

async fn record(mut stream: impl AsyncRead + AsyncWrite + Unpin, last: Arc<Mutex<String>>) {
    while let Some((head, _)) = read_request(&mut stream).await {
        *last.lock().unwrap() = head;
        let _ = stream.write_all(json_answer(RESULT).as_bytes()).await;
    }
}

async fn call(to: SocketAddr, headers: &str) -> HttpResponse {
    let reply = post(to, &tool_call("1", "echo", "{}"), headers).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// The head that a release gets when the settings are these.
async fn head_at_release(settings: &str, headers: &str) -> (String, Proxy, SocketAddr) {
    let (upstream, last) = recording().await;
    let proxy = start(&service_with(settings));
    proxy.add_release(RELEASE_A, &Address::Tcp(upstream));
    proxy.set_active(RELEASE_A);
    call(proxy.local_addr(), headers).await;
    let head = last.lock().unwrap().clone();
    (head, proxy, upstream)
}

#[tokio::test]
async fn a_unix_slot_is_called_by_a_name_with_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blue.sock");
    let (listener, last) = (UnixListener::bind(&path).unwrap(), Arc::default());
    let written = Arc::clone(&last);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(record(stream, Arc::clone(&written)));
        }
    });
    let proxy = start(&service_with(""));
    proxy.add_release(RELEASE_A, &Address::Unix(path));
    proxy.set_active(RELEASE_A);
    call(proxy.local_addr(), "").await;
    let want = format!("localhost:{}", proxy.local_addr().port());
    assert_eq!(header(&last.lock().unwrap(), "host"), Some(want.as_str()));
}

#[tokio::test]
async fn upstream_host_decides_how_the_release_is_called() {
    let (head, _, upstream) = head_at_release("", "").await;
    assert_eq!(header(&head, "host"), Some(upstream.to_string().as_str()));
    let (head, _, _) = head_at_release("upstream_host = \"client\"", "").await;
    assert_eq!(header(&head, "host"), Some("localhost"));
    let (head, _, _) = head_at_release("upstream_host = \"mcp.example.org:443\"", "").await;
    assert_eq!(header(&head, "host"), Some("mcp.example.org:443"));
}

#[tokio::test]
async fn forwarding_headers_are_believed_only_from_trusted_proxies() {
    let front = "X-Forwarded-For: 203.0.113.66\r\nX-Forwarded-For: 198.51.100.7\r\n\
                 X-Forwarded-Proto: https\r\nX-Forwarded-Host: mcp.example.org\r\n";
    let (head, _, _) = head_at_release("", front).await;
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.66, 198.51.100.7, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "mcp.example.org"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
    let (head, _, _) = head_at_release("trusted_proxies = [\"192.0.2.0/24\"]", front).await;
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "localhost"),
    ] {
        assert_eq!(header(&head, name), Some(value), "{head}");
    }
}

#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_listener_has_its_ipv4_address() {
    let (upstream, last) = recording().await;
    let proxy = proxy_with(upstream, |service| service.listen = "[::]:0".parse().unwrap());
    let port = proxy.local_addr().port();
    call(([127, 0, 0, 1], port).into(), "").await;
    assert_eq!(header(&last.lock().unwrap(), "x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn urls_of_the_slot_are_turned_back() {
    let release = scripted(|mut stream| async move {
        while let Some((head, _)) = read_request(&mut stream).await {
            let host = header(&head, "host").unwrap();
            let answer = if head.starts_with("GET /.well-known/") {
                json_answer(&format!(r#"{{"resource":"http://{host}/mcp"}}"#))
            } else {
                format!(
                    "HTTP/1.1 307 X\r\nLocation: http://{host}/mcp/\r\nContent-Location: /here\r\n\
                     WWW-Authenticate: Bearer resource_metadata=\"http://{host}/meta\"\r\n\
                     Content-Length: 0\r\n\r\n"
                )
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let proxy = proxy_to(release);
    let front = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: mcp.example.org\r\n";
    let reply = send_raw(proxy.local_addr(), &request(&tool_call("1", "echo", "{}"), front)).await;
    assert_eq!(reply.header("location"), Some("https://mcp.example.org/mcp/"));
    assert_eq!(reply.header("content-location"), Some("/here"));
    let challenge = "Bearer resource_metadata=\"https://mcp.example.org/meta\"";
    assert_eq!(reply.header("www-authenticate"), Some(challenge));
    let path = "/.well-known/oauth-protected-resource/mcp";
    let reply =
        send_raw(proxy.local_addr(), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
    assert_eq!(reply.text(), r#"{"resource":"http://localhost/mcp"}"#);
}

#[tokio::test]
async fn pages_of_an_allowed_origin_can_read_responses_of_the_proxy() {
    let settings = format!("origins = [\"{ORIGIN}\"]");
    let proxy = start(&service_with(&settings));
    let to = proxy.local_addr();
    let line = format!("Origin: {ORIGIN}\r\n");
    let down = post(to, &tool_call("1", "echo", "{}"), &line).await;
    assert_eq!((down.status, down.header("access-control-allow-origin")), (200, Some(ORIGIN)));
    assert_eq!(down.header("vary"), Some("Origin"));
    let headers = format!("{line}Mcp-Session-Id: x\r\n");
    let over = post(to, &tool_call("1", "echo", "{}"), &headers).await;
    assert_eq!((over.status, over.header("access-control-allow-origin")), (404, Some(ORIGIN)));
    let preflight = format!(
        "OPTIONS /mcp HTTP/1.1\r\nHost: localhost\r\n{line}Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: mcp-session-id\r\n\r\n"
    );
    let preflight = send_raw(to, &preflight).await;
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", ORIGIN),
        ("access-control-allow-headers", "mcp-session-id"),
        ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
    ] {
        assert_eq!(preflight.header(name), Some(value));
    }
    let stranger =
        post(to, &tool_call("1", "echo", "{}"), "Origin: https://evil.example\r\n").await;
    assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (403, None));
}

#[tokio::test]
async fn responses_of_the_release_keep_their_own_cors_headers() {
    let answer = json_answer(RESULT).replacen("Content-Type", "Vary: Accept\r\nContent-Type", 1);
    let release = fixed_response(answer).await;
    let proxy = start(&service_with(&format!("origins = [\"{ORIGIN}\"]")));
    proxy.add_release(RELEASE_A, &Address::Tcp(release));
    proxy.set_active(RELEASE_A);
    let reply = call(proxy.local_addr(), &format!("Origin: {ORIGIN}\r\n")).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    assert_eq!(reply.header("vary"), Some("Accept"));
}

#[tokio::test]
async fn a_session_works_under_every_upstream_host() {
    for host in ["slot", "client", "mcp.example.org"] {
        let server = FakeMcpServer::start("a").await;
        let proxy = start(&service_with(&format!("upstream_host = \"{host}\"")));
        proxy.add_release(RELEASE_A, &Address::Tcp(server.address));
        proxy.set_active(RELEASE_A);
        let session = open_session(proxy.local_addr()).await;
        call(proxy.local_addr(), &session).await;
    }
}
