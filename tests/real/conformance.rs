//! The official conformance suite says the same of a server, whether the proxy is in front or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::harness::{RealServerHarness, WAIT_MAX};
use super::servers::{ServerKind, npm_package, tests_dir};

/// The proxy looks at Host and Origin itself, whatever its server thinks of them.
const EXPECTED_DIFFERENCE: &str = "dns-rebinding-protection";
const SUCCESS: &str = "SUCCESS";

/// By scenario and check: its status, and what is wrong.
type Results = BTreeMap<(String, String), (String, String)>;

#[tokio::test]
async fn conformance_results_match_direct_access_for_typescript() {
    compare(ServerKind::Everything, 12).await;
}

#[tokio::test]
async fn conformance_results_match_direct_access_for_python() {
    compare(ServerKind::Fixtures, 36).await;
}

/// `min_passed` checks at least succeed, so that something is compared.
async fn compare(server: ServerKind, min_passed: usize) {
    let stage = RealServerHarness::start(server, "").await;
    let said = stage.deploy_old("v1", &["--wait"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let direct = run_suite(&stage, stage.blue).await;
    let proxied = run_suite(&stage, stage.listen).await;
    assert_eq!(
        proxied.keys().collect::<Vec<_>>(),
        direct.keys().collect::<Vec<_>>(),
        "other checks were run"
    );
    for (check, result) in &proxied {
        if check.0 == EXPECTED_DIFFERENCE {
            assert_eq!(result.0, SUCCESS, "{check:?}: {result:?}");
        } else {
            assert_eq!(result, &direct[check], "{check:?}: through the proxy, and without it");
        }
    }
    let succeeded = proxied.values().filter(|(status, _)| status == SUCCESS).count();
    assert!(succeeded >= min_passed, "{succeeded} of {} checks succeed", proxied.len());
    assert_eq!(stage.stop_daemon().await, Some(0));
}

async fn run_suite(stage: &RealServerHarness, server: SocketAddr) -> Results {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Command::new("node");
    // Loaded first, for the node of Debian 12.
    node.current_dir(tests_dir()).args(["--import", "./lo.mjs"]);
    node.arg(npm_package("@modelcontextprotocol/conformance").join("dist/index.js"));
    node.args(["server", "--url", &format!("http://{server}/mcp"), "--output-dir"]);
    node.arg(folder.path()).kill_on_drop(true);
    node.stdin(Stdio::null()).stdout(stage.log_stdio()).stderr(stage.log_stdio());
    // The exit code tells whether all is well, which is not asked here.
    timeout(2 * WAIT_MAX, node.status()).await.expect("the suite does not end").unwrap();
    let mut results = Results::new();
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        let scenario = scenario(&entry.file_name().into_string().unwrap());
        let checks = std::fs::read_to_string(entry.path().join("checks.json")).unwrap();
        let checks: Vec<Value> = serde_json::from_str(&checks).unwrap();
        for check in checks {
            let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            // Where the server is differs, of course.
            let wrong = text("errorMessage").replace(&server.to_string(), "server");
            results.insert((scenario.clone(), text("id")), (text("status"), wrong));
        }
    }
    results
}

/// A folder is `server-`, the scenario, and the time of day.
fn scenario(folder: &str) -> String {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    let end = name.find("-20").expect("the suite puts the time into the name");
    name[..end].to_owned()
}
