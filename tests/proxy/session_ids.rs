//! Session ids that are stale, and long ones.

use rollbackd::model::Moment;
use tokio::io::AsyncWriteExt;

use crate::fake_backend::{FakeMcpServer, json_answer, read_request, scripted};
use crate::http_client::{INITIALIZE, open_session, post, send_raw, tool_call};
use crate::{RELEASE_A, proxy_to};

#[tokio::test]
async fn initialize_with_an_unknown_id_opens_a_session() {
    let server = FakeMcpServer::start("a").await;
    let proxy = proxy_to(server.address);
    let to = proxy.local_addr();
    let mine = open_session(to).await;
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{mine}\r\n");
    assert_eq!(send_raw(to, &delete).await.status, 200);
    for stale in [mine.as_str(), "Mcp-Session-Id: 0b9d7d5e-1111-4f0e\r\n"] {
        let reply = post(to, INITIALIZE, stale).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let new = format!("Mcp-Session-Id: {}\r\n", reply.header("mcp-session-id").unwrap());
        assert_eq!(post(to, &tool_call("1", "echo", "{}"), &new).await.status, 200);
    }
    // The release never saw the stale ids.
    let ids: Vec<_> = server.log.lock().unwrap().iter().map(|(_, id, _)| id.clone()).collect();
    assert!(ids.iter().all(|id| id.is_empty() || id.starts_with("a-")), "{ids:?}");
}

/// The Python SDK names a session in each answer, also in one that refuses a request without a session.
#[tokio::test]
async fn an_error_that_names_a_session_opens_none_until_a_client_uses_it() {
    let release = scripted(|mut stream| async move {
        while let Some((head, _)) = read_request(&mut stream).await {
            let answer = json_answer(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
            let answer = match head.to_lowercase().contains("mcp-session-id: named") {
                true => answer,
                false => answer.replace("200 OK\r\n", "400 Bad\r\nMcp-Session-Id: named\r\n"),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let proxy = proxy_to(release);
    let to = proxy.local_addr();
    let refused = post(to, &tool_call("1", "echo", "{}"), "").await;
    assert_eq!((refused.status, proxy.load(RELEASE_A, Moment(0)).sessions), (400, 0));
    let mine = format!("Mcp-Session-Id: {}\r\n", refused.header("mcp-session-id").unwrap());
    assert_eq!(post(to, &tool_call("1", "echo", "{}"), &mine).await.status, 200);
    assert_eq!(proxy.load(RELEASE_A, Moment(0)).sessions, 1);
}

#[tokio::test]
async fn long_session_ids_of_a_release_work() {
    let id = "x".repeat(8_000);
    let expected = id.clone();
    let release = scripted(move |mut stream| {
        let id = expected.clone();
        async move {
            while let Some((head, body)) = read_request(&mut stream).await {
                let is_opening = String::from_utf8_lossy(&body).contains("initialize");
                let known = head.contains(&id);
                let result = r#"{"jsonrpc":"2.0","id":0,"result":{}}"#;
                let answer = json_answer(result);
                let answer = match (is_opening, known) {
                    (true, _) => {
                        answer.replacen("Content", &format!("Mcp-Session-Id: {id}\r\nContent"), 1)
                    }
                    (false, true) => answer,
                    (false, false) => "HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let proxy = proxy_to(release);
    let mine = open_session(proxy.local_addr()).await;
    assert_eq!(post(proxy.local_addr(), &tool_call("0", "echo", "{}"), &mine).await.status, 200);
}
