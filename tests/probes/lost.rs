//! A restarted server lost the session of the prober.

use std::sync::Mutex;

use rollbackd::config::ProbeKind;
use rollbackd::model::ProbeResult;

use crate::fake_server::{FakeResponse, FakeServer, legacy_response};

/// A server that answers like this once the first session was used.
async fn forgets(status: u16, body: &'static str) -> FakeServer {
    let (opened, used) = (Mutex::new(0), Mutex::new(0));
    FakeServer::start(move |asked| {
        let mut used = used.lock().unwrap();
        if *used > 0 && asked.method_name == "POST" && asked.header("mcp-session-id") == Some("s1")
        {
            return FakeResponse::with(status, "content-type: application/json\r\n", body);
        }
        *used += u32::from(asked.method() == "tools/list");
        legacy_response(asked, &opened, |_| true, 404)
    })
    .await
}

fn opened(fake: &FakeServer) -> usize {
    fake.methods().iter().filter(|method| *method == "initialize").count()
}

#[tokio::test]
async fn it_is_no_failure_however_the_server_says_it() {
    for (status, body) in [
        (404, ""),
        (404, r#"{"error":{"code":-32001,"message":"Session not found"},"id":null}"#),
        (
            400,
            r#"{"error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
        ),
        (
            400,
            r#"{"error":{"code":-32600,"message":"Bad Request: Missing session ID"},"id":"server-error"}"#,
        ),
        (400, "Invalid session ID\n"),
        (401, "Unauthorized: Session not found"),
    ] {
        let fake = forgets(status, body).await;
        let mut prober = fake.prober(ProbeKind::Mcp);
        for _ in 0..3 {
            assert_eq!(prober.probe().await, ProbeResult::Ok, "{status} {body}");
        }
        assert_eq!(opened(&fake), 2, "{status} {body}");
    }
}

#[tokio::test]
async fn an_error_that_only_speaks_of_a_session_is_one() {
    for (status, body) in [
        (
            400,
            r#"{"error":{"code":-32000,"message":"no database session: session not found"},"id":1}"#,
        ),
        (404, r#"{"error":{"code":-32601,"message":"Method not found"},"id":1}"#),
        (500, r#"{"error":{"code":-32000,"message":"Session not found"},"id":1}"#),
    ] {
        let fake = forgets(status, body).await;
        let mut prober = fake.prober(ProbeKind::Mcp);
        assert_eq!(prober.probe().await, ProbeResult::Ok);
        for _ in 0..2 {
            assert!(!prober.probe().await.is_ok(), "{status} {body}");
        }
        assert_eq!(opened(&fake), 1, "{status} {body}");
    }
}
