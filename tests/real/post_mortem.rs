//! A server of the Python SDK breaks as servers do, and the draft of the post-mortem names the cause.

use serde_json::Value;

use super::harness::{RealServerHarness, SERVICE};
use super::servers::{ServerKind, tests_dir};

/// Evidence that is enough after fewer calls than by default.
const SETTINGS: &str = r#"
    drain_timeout = "5s"
    stop_timeout = "2s"
    tool_objective = "99%"
    shape = "act"
"#;
/// Answers of the healthy server, from which its usual ones are known.
const ANSWERS_MIN: u64 = 150;

/// Deploys the healthy server and then a broken one. Returns the draft.
async fn draft(broken: &str) -> Value {
    let stage = RealServerHarness::start(ServerKind::Python, SETTINGS).await;
    let release = |name: &str| tests_dir().join(format!("python/weather_{name}.py"));
    let deployed = stage.deploy("v1", release("healthy"), &["--wait"]).await;
    assert_eq!(deployed.code, 0, "{deployed:?}");
    let _forecast = stage.call_tool("forecast", r#"{"city":"Berlin"}"#);
    let _alerts = stage.call_tool("alerts", r#"{"city":"Rome"}"#);
    let served =
        async || stage.status().await["releases"][0]["counts"]["ok"].as_u64() > Some(ANSWERS_MIN);
    stage.wait_until("traffic", served).await;
    let deployed = stage.deploy("v2", release(broken), &["--wait"]).await;
    assert_eq!(deployed.code, 3, "{deployed:?}");
    let show = async || {
        let shown = stage.run_cli(&["postmortem", SERVICE, "--json"]).await;
        serde_json::from_str::<Value>(&shown.out).unwrap_or_default()
    };
    stage.wait_until("the draft", async || show().await["state"] == "draft").await;
    let document = show().await;
    let top = &document["hypotheses"][0];
    println!("{broken}: {} ({})", top["title"], top["observation"]);
    // What users asked for is not in a document about the server.
    assert!(!document.to_string().contains("Berlin"), "{document:#}");
    document
}

fn assert_top(document: &Value, rule: &str, words: &[&str]) {
    let top = &document["hypotheses"][0];
    assert_eq!(top["rule"], rule, "{document:#}");
    let text = format!("{} {}", top["title"], top["observation"]);
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[tokio::test]
async fn a_required_argument_is_named() {
    let document = draft("argument").await;
    assert_top(&document, "contract", &["forecast", "requires unit"]);
}

#[tokio::test]
async fn an_exception_in_one_tool_is_named() {
    let document = draft("exception").await;
    assert_top(
        &document,
        "one-call",
        &["`tools/call forecast`", "region", "other calls failed 0 of"],
    );
}

#[tokio::test]
async fn a_memory_limit_is_named() {
    let document = draft("memory").await;
    assert_top(&document, "memory", &["v2 runs out of memory", "MemoryError"]);
}

#[tokio::test]
async fn a_tool_that_finds_nothing_is_named() {
    let document = draft("empty").await;
    assert_top(
        &document,
        "different-answers",
        &["tools/call forecast of v2 finds nothing", "small answers"],
    );
}
