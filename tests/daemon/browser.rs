//! The status page and the post-mortem in a browser.

use std::path::Path;
use std::process::Command;

use crate::page::host_with_page;
use crate::support::{VersionPoller, wait_until};

/// Opens pages in a browser, in each of its views; what is wrong with them.
fn browse(urls: &[String]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/browser.mjs");
    let output = Command::new("node").arg(script).arg("/usr/bin/chromium").args(urls).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn pages_and_post_mortem_have_no_problem_in_a_browser() {
    let (host, port) = host_with_page();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let nothing_deployed = browse(&[url("/"), url("/service/weather")]);
    assert_eq!(nothing_deployed, "");
    host.deploy("v1", &["--wait"]).expect_code(0);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[]).expect_code(3);
    load.stop();
    let draft = || host.run_cli(&["postmortem", "weather", "2"]).out;
    wait_until("a draft", || draft().contains("State: draft"));
    let file = host.dir_path().join("postmortem.html");
    let path = file.to_str().unwrap();
    host.run_cli(&["postmortem", "weather", "2", "--html", path]).expect_code(0);
    let report = host.dir_path().join("report.html");
    let report = report.to_str().unwrap();
    host.run_cli(&["report", "--html", report]).expect_code(0);
    let pages = ["/", "/service/weather", "/service/weather/deploy/1", "/service/weather/deploy/2"];
    let mut urls: Vec<_> = pages.map(url).to_vec();
    urls.extend([path, report].map(|file| format!("file://{file}")));
    assert_eq!(browse(&urls), "");
}
