//! The responses of real servers, each with its source.

use super::*;

const TS: &str = "npm @modelcontextprotocol/sdk 1.32.2, server/webStandardStreamableHttp.js";
const EVERYTHING: &str = "npm @modelcontextprotocol/server-everything 2026.8.31";
const PYTHON: &str = "PyPI mcp 1.30.0 and 2.3.0 (FastMCP runs on it), server/streamable_http.py";
const MANAGER: &str = "PyPI mcp 1.30.0 and 2.3.0, server/streamable_http_manager.py";
const PYTHON_OLD: &str = "PyPI mcp 1.12.4, server/streamable_http_manager.py";
const RMCP: &str = "crates.io rmcp 3.11.0, streamable_http_server/tower.rs";
const RMCP_OLD: &str = "crates.io rmcp 0.8.5, streamable_http_server/tower.rs";
const RMCP_WRONG: &str = "crates.io rmcp 1.3.0, transport/common/server_side_http.rs";
const GO: &str = "github.com/modelcontextprotocol/go-sdk, mcp/streamable.go";
const MARK3LABS: &str = "github.com/mark3labs/mcp-go, server/streamable_http.go";

fn lost(method: Method, status: u16, body: &str) -> bool {
    let content = ResponseContent::of(body.as_bytes());
    session_lost(&Answered { method: &method, in_session: true, status, content: &content })
}

fn error(code: i64, message: &str) -> String {
    let error = serde_json::json!({"code": code, "message": message});
    serde_json::json!({"jsonrpc": "2.0", "id": null, "error": error}).to_string()
}

#[test]
fn real_servers_that_lost_a_session() {
    let errors = [
        (TS, 404, -32001, "Session not found"),
        (TS, 400, -32000, "Bad Request: Server not initialized"),
        (TS, 400, -32000, "Bad Request: Mcp-Session-Id header is required"),
        (EVERYTHING, 400, -32000, "Bad Request: No valid session ID provided"),
        (MANAGER, 404, -32600, "Session not found"),
        (PYTHON, 404, -32600, "Not Found: Session has been terminated"),
        (PYTHON, 404, -32600, "Not Found: Invalid or expired session ID"),
        (PYTHON, 400, -32600, "Bad Request: Missing session ID"),
    ];
    for (source, status, code, message) in errors {
        // Servers reject a client's GET stream in the same words.
        for method in [Method::POST, Method::GET] {
            assert!(lost(method, status, &error(code, message)), "{source}: {message}");
        }
    }
    let texts = [
        (PYTHON_OLD, 400, "Bad Request: No valid session ID provided"),
        (RMCP, 404, "Not Found: Session not found"),
        (RMCP, 400, "Bad Request: Session ID is required"),
        (RMCP_OLD, 401, "Unauthorized: Session not found"),
        (RMCP_OLD, 401, "Unauthorized: Session ID is required"),
        (RMCP_WRONG, 422, "Unexpected message, expect initialize request"),
        (GO, 404, "session not found\n"),
        (GO, 404, "session is closing\n"),
        (MARK3LABS, 400, "Invalid session ID\n"),
        (MARK3LABS, 404, "Session terminated\n"),
    ];
    for (source, status, text) in texts {
        for method in [Method::POST, Method::GET] {
            assert!(lost(method, status, text), "{source}: {text}");
        }
    }
    // As the specification has it, with whatever body.
    for body in ["", "gone", "<html>\n", r#"{"detail":"Not Found"}"#, r#"{"error":"no session"}"#] {
        assert!(lost(Method::POST, 404, body), "{body}");
    }
}

#[test]
fn real_answers_that_say_nothing_of_the_session() {
    let errors = [
        (TS, 400, -32700, "Parse error: Invalid JSON"),
        (TS, 400, -32600, "Invalid Request: Server already initialized"),
        (TS, 400, -32600, "Invalid Request: Only one initialization request is allowed"),
        (TS, 400, -32000, "Bad Request: Unsupported protocol version: x (supported versions: y)"),
        (TS, 400, -32000, "Invalid event ID format"),
        (TS, 403, -32000, "Invalid Host header: localhost"),
        (TS, 406, -32000, "Not Acceptable: Client must accept text/event-stream"),
        (TS, 409, -32000, "Conflict: Only one SSE stream is allowed per session"),
        (
            PYTHON,
            400,
            -32600,
            "Bad Request: Unsupported protocol version: x. Supported versions: y",
        ),
        ("a tool", 200, -32000, "Session not found"),
        ("a tool", 500, -32000, "Session not found"),
        ("a tool", 400, -32000, "the browser session was closed: session not found"),
        ("a tool", 400, -32600, "session not found in the database"),
        ("a tool", 400, -32602, "Session ID is required"),
        ("a tool", 404, -32602, "session not found"),
        ("an unknown method", 404, -32601, "Method not found"),
        ("a resource", 404, -32002, "Resource not found: file:///session"),
    ];
    for (source, status, code, message) in errors {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            assert!(!lost(method, status, &error(code, message)), "{source}: {message}");
        }
    }
    let texts = [
        ("github.com/expressjs/express", Method::GET, 404, "<pre>Cannot GET /mcp</pre>"),
        ("github.com/expressjs/express", Method::DELETE, 404, "<pre>Cannot DELETE /mcp</pre>"),
        ("PyPI starlette", Method::GET, 404, "Not Found"),
        ("PyPI fastapi", Method::GET, 404, r#"{"detail":"Not Found"}"#),
        ("a login", Method::POST, 401, "Session not found"),
        ("a login", Method::POST, 401, r#"{"error":"invalid_token"}"#),
        (GO, Method::POST, 403, "session user mismatch\n"),
        (GO, Method::GET, 405, "Method Not Allowed\n"),
        ("a tool", Method::POST, 200, r#"{"id":1,"result":{"isError":true,"content":"session"}}"#),
        ("a tool", Method::POST, 404, r#"{"id":1,"result":{}}"#),
        ("a rate limit", Method::POST, 429, "too many requests in this session"),
    ];
    for (source, method, status, text) in texts {
        assert!(!lost(method, status, text), "{source}: {text}");
    }
}

#[test]
fn a_request_that_ends_or_opens_a_session_loses_none() {
    let body = error(-32001, "Session not found");
    assert!(!lost(Method::DELETE, 404, &body) && !lost(Method::DELETE, 404, ""));
    let content = ResponseContent::of(body.as_bytes());
    for method in [Method::POST, Method::GET] {
        let answer =
            Answered { method: &method, in_session: false, status: 404, content: &content };
        assert!(!session_lost(&answer));
    }
}

#[test]
fn a_text_may_continue_after_a_punctuation_mark() {
    assert!(lost(Method::POST, 400, &error(-32000, "Session not found: 5d3c")));
    assert!(lost(Method::POST, 400, &error(-32000, "Server not initialized.")));
    assert!(!lost(Method::POST, 400, &error(-32000, "Server not initialized yet")));
    assert!(!lost(Method::POST, 400, &format!("Session not found. {}", "x".repeat(TEXT_MAX))));
}
