//! `rollbackd demo` as a person starts it: what it prints, and that it ends as it should.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and prints a table"
)]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than any demo takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the demo with its folder in `temporary`.
async fn demo(temporary: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
    command.arg("demo").args(arguments).env("TMPDIR", temporary).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.unwrap().unwrap()
}

/// What the demo left, except the post-mortem.
fn folders(temporary: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(temporary).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|it| !it.starts_with("rollbackd-post-mortem-")).collect()
}

async fn summary(arguments: &[&str]) -> (Value, String) {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &[&["--json"], arguments].concat()).await;
    let progress = String::from_utf8(output.stderr).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{progress}");
    assert_eq!(folders(temporary.path()), Vec::<String>::new(), "the folder is removed");
    let summary: Value = serde_json::from_str(&text).unwrap();
    if let Some(html) = summary.pointer("/draft/html").and_then(Value::as_str) {
        assert!(std::fs::read_to_string(html).unwrap().contains("<h2>Impact</h2>"));
    }
    (summary, progress)
}

#[tokio::test]
async fn a_release_that_fails_is_rolled_back_and_the_demo_says_so_in_one_sentence() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--keep", "--page"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("other than by default: latency = "), "{text}");
    assert!(text.contains("\nstatus page on http://127.0.0.1:"), "{text}");
    let sentence = text.lines().last().unwrap();
    assert!(sentence.starts_with("=> v2 was rolled back; clients saw failures for "), "{text}");
    assert!(sentence.ends_with(" requests failed; no session was lost"), "{text}");
    assert!(!text.contains('\x1b'), "no terminal, no picture: {text}");
    let [folder] = folders(temporary.path()).try_into().unwrap();
    let timeline = temporary.path().join(folder).join("state/weather/000002.jsonl");
    assert!(text.contains(&timeline.display().to_string()), "{text}");
    assert!(timeline.is_file());
    // What a person would get, and where the draft of the post-mortem is.
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    assert!(field("message ").starts_with("weather: v2 rolled back to v1 in "), "{text}");
    assert!(Path::new(field("draft ")).is_file(), "{text}");
}

#[tokio::test]
async fn one_tool_of_three_is_enough_and_sessions_that_cannot_move_are_told() {
    let (summary, _) = summary(&["--fault", "one-tool", "--rate", "100", "--sticky"]).await;
    assert!(summary["recovered_ms"].is_u64(), "{summary}");
    assert_eq!(summary["sessions"]["migrated"], 0, "{summary}");
}

#[tokio::test]
async fn a_release_without_a_fault_is_accepted() {
    let (summary, _) = summary(&["--fault", "none"]).await;
    assert_eq!((&summary["failed"], &summary["decided_ms"]), (&0.into(), &Value::Null));
    assert!(summary["accepted_ms"].is_u64(), "{summary}");
    assert_eq!(summary["timeline"], Value::Null);
    assert_eq!(summary["draft"], Value::Null, "no incident, no post-mortem");
}

#[tokio::test]
async fn an_outage_of_both_releases_is_not_the_fault_of_the_new_one() {
    let (summary, progress) = summary(&["--fault", "shared-outage"]).await;
    assert!(progress.contains("the service behind v1 and v2 is down"), "{progress}");
    assert!(summary["failed"].as_u64() > Some(50), "{summary}");
    assert_eq!(summary["decided_ms"], Value::Null, "{summary}");
}

/// A silent release answers late or never: its fault begins when the request is sent.
#[tokio::test]
async fn a_silent_release_is_not_detected_before_its_first_bad_request() {
    let (summary, _) = summary(&["--fault", "hang"]).await;
    assert!(summary["first_bad_ms"].as_u64() <= summary["detected_ms"].as_u64(), "{summary}");
}

#[tokio::test]
async fn a_wrong_fault_is_refused_with_the_list() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(temporary.path(), &["--fault", "one-tol"]).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("one-tool, crash-loop"), "{text}");
}

/// The hypotheses of the draft, the first one first: title and observation.
async fn hypotheses(fault: &str) -> Vec<(String, String)> {
    let temporary = tempfile::tempdir().unwrap();
    // Its exit code is about what clients saw: of requests that hang, each may be sent again in time.
    demo(temporary.path(), &["--keep", "--fault", fault]).await;
    let [folder] = folders(temporary.path()).try_into().unwrap();
    let path = temporary.path().join(folder).join("state/weather/incidents/000002.md");
    let text = std::fs::read_to_string(path).unwrap();
    let offered = text.split_once("Hypotheses, by what the daemon saw:").unwrap().1;
    let offered = offered.split_once("<!--").unwrap().0.replace('\\', "");
    let lines = offered.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**: "));
    let offers: Vec<_> = lines.map(|(title, why)| (title.to_owned(), why.to_owned())).collect();
    println!("{fault}: {} ({})", offers[0].0, offers[0].1);
    offers
}

/// The top hypothesis names the cause with its observation, and no other cause is offered.
async fn assert_cause(fault: &str, title: &str, observation: &str, also: &[&str]) {
    let offers = hypotheses(fault).await;
    let (top, why) = &offers[0];
    assert!(top == title && why.contains(observation), "{fault}: {offers:#?}");
    for (other, _) in &offers[1..] {
        assert!(also.iter().any(|it| other.contains(it)), "{fault}: {offers:#?}");
    }
}

/// True of any release that fails a part of its requests.
const SHARE: &str = "fails a share of its requests";
const EVERY: &str = "fails every request";

#[tokio::test]
async fn the_draft_names_a_total_failure() {
    let title = "v2 answers with errors, also to its probes";
    assert_cause("total", title, "status 500", &[SHARE, EVERY]).await;
}

#[tokio::test]
async fn the_draft_names_a_share_of_errors() {
    let title = "v2 fails a share of its requests since the deploy";
    assert_cause("errors=20%", title, "answer: -32603 \"", &[]).await;
}

#[tokio::test]
async fn the_draft_names_slowness() {
    assert_cause("slow", "v2 is slow", "took longer than the latency limit", &[SHARE]).await;
}

#[tokio::test]
async fn the_draft_names_requests_that_do_not_end() {
    assert_cause("hang", "requests to v2 do not end", "latency limit", &[SHARE, EVERY]).await;
}

#[tokio::test]
async fn the_draft_names_errors_of_all_tools() {
    let title = "the tools of v2 return errors; the server itself answers";
    assert_cause("tool-errors", title, "returned isError", &[SHARE, EVERY]).await;
}

#[tokio::test]
async fn the_draft_names_the_one_tool_that_fails() {
    let also = ["the tools of v2 return errors", SHARE];
    assert_cause(
        "one-tool",
        "`tools/call weather` is broken in v2",
        "other calls failed 0 of",
        &also,
    )
    .await;
}

#[tokio::test]
async fn the_draft_names_a_crash() {
    assert_cause("crash-loop", "the process of v2 crashes", "exit code 1", &[SHARE, EVERY]).await;
}
