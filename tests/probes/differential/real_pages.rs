//! Pages of programs that we did not write: recorded ones of HAProxy, Caddy and OpenTelemetry, and what
//! Prometheus, node-exporter, prom-client and prometheus_client print now.

use std::path::Path;
use std::process::Command;

use super::prometheus::{Program, free_address, http_client, unpacked};
use super::{Expected, Page};
use crate::async_wait::wait_for;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Each was the answer of the program, unchanged.
pub(crate) fn recorded_pages() -> Vec<Page> {
    vec![
        page("HAProxy 2.6", TEXT, include_bytes!("../pages/haproxy-2.6.prom").to_vec()),
        page("Caddy 2.6", TEXT, include_bytes!("../pages/caddy-2.6.prom").to_vec()),
        page(
            "OpenTelemetry in node",
            TEXT,
            include_bytes!("../pages/opentelemetry-js-2.12.prom").to_vec(),
        ),
    ]
}

/// Starts the programs and asks each for its page, in both formats.
pub(crate) async fn pages_of_clients() -> Vec<Page> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new("node");
    node.arg(home.join("tests/probes/pages/node.mjs"));
    let mut python = Command::new(home.join("target/real/python-metrics/bin/python"));
    python.arg(home.join("tests/probes/pages/python.py"));
    let mut pages = Vec::new();
    let node = printed_pages("prom-client", node);
    let python = printed_pages("prometheus_client", python);
    let (prometheus, node_exporter) =
        tokio::join!(served_by_prometheus(), served_by_node_exporter());
    for (expected, found) in [(2, node), (6, python), (2, prometheus), (2, node_exporter)] {
        assert_eq!(found.len(), expected);
        pages.extend(found);
    }
    pages
}

/// The pages that a script prints, every second one as OpenMetrics.
fn printed_pages(name: &str, mut script: Command) -> Vec<Page> {
    let output = script.output().unwrap_or_else(|error| panic!("{name}: {error}; run tests/run"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}; run tests/run");
    let text = String::from_utf8(output.stdout).unwrap();
    let formats = [TEXT, OPEN_METRICS].into_iter().cycle();
    let pages = text.split("\n--\n").zip(formats).enumerate();
    pages
        .map(|(number, (body, format))| {
            page(&format!("{name} {number}"), format, body.as_bytes().to_vec())
        })
        .collect()
}

async fn served_by_prometheus() -> Vec<Page> {
    let (dir, listen) = (tempfile::tempdir().unwrap(), free_address());
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, "scrape_configs: []\n").unwrap();
    let _program = Program::start(
        unpacked("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={listen}")),
    );
    served("Prometheus", &listen).await
}

async fn served_by_node_exporter() -> Vec<Page> {
    let listen = free_address();
    let _program = Program::start(
        unpacked("prometheus-node-exporter").arg(format!("--web.listen-address={listen}")),
    );
    served("node-exporter", &listen).await
}

async fn served(name: &str, listen: &str) -> Vec<Page> {
    let client = http_client();
    let mut pages = Vec::new();
    for accept in [TEXT, OPEN_METRICS] {
        let fetch = || async {
            let request = client.get(format!("http://{listen}/metrics")).header("accept", accept);
            request.send().await.ok().filter(|it| it.status() == 200)
        };
        let answer = wait_for(&format!("the page of {name}"), fetch).await;
        let format = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let body = answer.bytes().await.unwrap().to_vec();
        pages.push(page(&format!("{name}, {format}"), &format, body));
    }
    pages
}

/// A page whose counters are compared, all of them.
fn page(name: &str, format: &str, body: Vec<u8>) -> Page {
    let text = std::str::from_utf8(&body).unwrap();
    // Prometheus 2 refuses a page with a quoted name.
    let (selectors, expected) = match text.contains("\n{\"http.requests_total\"") {
        true => (vec!["{\"http.requests_total\"}".to_owned()], Expected::AllowedSince2(9.0)),
        false => (counters(text), Expected::Same),
    };
    let is_sample = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let samples = text.lines().filter(is_sample).count();
    let samples = Some(samples).filter(|_| expected == Expected::Same);
    assert!(!selectors.is_empty(), "{name} has no counter");
    let headers = format!("content-type: {format}\r\n");
    let name = name.to_owned();
    Page { name, headers, body, samples, selectors, expected }
}

/// The series of the families that are counters.
fn counters(page: &str) -> Vec<String> {
    let types =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
    let series = |name: &str| {
        let mut lines = page.lines();
        lines.any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
    };
    let names = types.flat_map(|family| [family.to_owned(), format!("{family}_total")]);
    names.filter(|name| series(name)).collect()
}
