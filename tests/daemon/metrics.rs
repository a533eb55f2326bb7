//! The daemon's own metrics, as a collector reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use prometheus_parse::{Sample, Scrape, Value};

use crate::support::{DaemonHarness, SERVICE, VersionPoller, free_port, wait_until};

/// A host with v1, whose metrics are at the port.
fn host_with_metrics() -> (DaemonHarness, u16) {
    let (mut host, port) = (DaemonHarness::new(""), free_port());
    let service = host.service_section(SERVICE, "");
    let daemon = host.daemon_section();
    host.write_config(&format!("{daemon}metrics = \"127.0.0.1:{port}\"\n{service}"));
    host.start();
    (host, port)
}

/// The whole response to a request.
fn fetch(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn scrape(port: u16) -> Scrape {
    let answer = fetch(port, "GET /metrics HTTP/1.1");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The samples of a family with these labels.
fn find_samples<'a>(scrape: &'a Scrape, name: &str, labels: &[(&str, &str)]) -> Vec<&'a Sample> {
    let fits = |it: &&Sample| {
        it.metric == name && labels.iter().all(|(label, text)| it.labels.get(label) == Some(text))
    };
    scrape.samples.iter().filter(fits).collect()
}

#[track_caller]
fn value(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let [sample] = find_samples(scrape, name, labels)[..] else {
        panic!("not one of {name} {labels:?} in {:#?}", scrape.samples);
    };
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn rollback_appears_in_the_metrics() {
    let (host, port) = host_with_metrics();
    let before = scrape(port);
    let rollbacks = |scrape: &Scrape| {
        ["cut", "drain"].map(|it| value(scrape, "rollbackd_rollbacks_total", &[("strategy", it)]))
    };
    assert_eq!(rollbacks(&before), [0.0, 0.0]);
    assert_eq!(value(&before, "rollbackd_phase", &[("phase", "empty")]), 1.0);
    host.deploy("v1", &["--wait"]).expect_code(0);
    let load = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "total", 3_000, &[]).expect_code(3);
    load.stop();
    let after = scrape(port);
    assert_eq!(rollbacks(&after), [1.0, 0.0]);
    let labels = [("service", SERVICE), ("version", "v1"), ("deploy", "1")];
    let role = [labels.as_slice(), &[("role", "active")]].concat();
    assert_eq!(value(&after, "rollbackd_release_info", &role), 1.0);
    assert_eq!(value(&after, "rollbackd_probe_ok", &labels), 1.0);
    let good = [labels.as_slice(), &[("outcome", "ok")]].concat();
    assert!(value(&after, "rollbackd_requests_total", &good) > 10.0);
    for kind in ["deployed", "detected", "recovered"] {
        let wanted = if kind == "deployed" { 2.0 } else { 1.0 };
        assert_eq!(value(&after, "rollbackd_events_total", &[("kind", kind)]), wanted, "{kind}");
    }
    for step in ["detected", "decided", "switched", "emptied", "recovered"] {
        let labels = [("step", step)];
        assert_eq!(value(&after, "rollbackd_rollback_step_seconds_count", &labels), 1.0, "{step}");
        let name = "rollbackd_rollback_step_seconds";
        let [Sample { value: Value::Histogram(buckets), .. }] =
            find_samples(&after, name, &labels)[..]
        else {
            panic!("{step} of {:#?}", after.samples);
        };
        assert!(buckets.is_sorted_by(|a, b| a.count <= b.count), "{buckets:?}");
        assert_eq!(buckets.last().map(|it| (it.less_than, it.count)), Some((f64::INFINITY, 1.0)));
    }
    assert!(value(&after, "rollbackd_timeline_write_seconds_count", &[]) > 8.0);
    // No journal is in use here.
    assert_eq!(value(&after, "rollbackd_journal_lost_total", &[]), 0.0);
    let counters = host.status()["counters"].clone();
    assert_eq!((&counters["cuts"], &counters["events"]["recovered"]), (&1.into(), &1.into()));
}

/// Collectors reject a series that appears twice; and no label may hold text of a client.
#[test]
fn series_are_unique_and_clients_add_none() {
    let (host, port) = host_with_metrics();
    host.deploy("v1", &["--wait"]).expect_code(0);
    // The same version in both slots.
    host.deploy("v1", &["--restart"]).expect_code(0);
    host.wait_for_phase("baking");
    let series = || {
        let scrape = scrape(port);
        let mut seen = BTreeSet::new();
        for sample in &scrape.samples {
            let labels: BTreeMap<_, _> = sample.labels.iter().collect();
            let new = seen.insert(format!("{} {labels:?}", sample.metric));
            assert!(new, "twice: {sample:?}");
        }
        let named = seen.iter().filter(|it| !it.contains("finding"));
        named.cloned().collect::<BTreeSet<_>>()
    };
    let before = series();
    let load = VersionPoller::start(host.listen);
    wait_until("requests", || host.status()["releases"][0]["rate"].as_f64() > Some(10.0));
    drop(load);
    assert_eq!(series(), before);
}

#[test]
fn openmetrics_is_served_on_request() {
    let (_host, port) = host_with_metrics();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = fetch(port, &format!("GET /metrics HTTP/1.1\r\nAccept: {accept}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.ends_with("\n# EOF\n") && body.matches("# EOF").count() == 1, "{body}");
    let mut family = "";
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(kind != "counter" || !name.ends_with("_total"), "{line}");
            family = name;
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} stands below {family}");
        }
    }
}

#[test]
fn other_paths_are_not_found() {
    let (_host, port) = host_with_metrics();
    assert!(fetch(port, "GET / HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(fetch(port, "POST /metrics HTTP/1.1").starts_with("HTTP/1.1 405"));
    assert!(fetch(port, "nonsense").starts_with("HTTP/1.1 400"));
}

#[test]
fn silent_connections_are_closed() {
    let (_host, port) = host_with_metrics();
    let silent: Vec<_> = (0..4).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let answer = fetch(port, "GET /metrics HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(silent);
}

#[test]
fn address_in_use_is_reported() {
    let (host, _) = host_with_metrics();
    let service = host
        .service_section(SERVICE, "")
        .replace(&host.listen.to_string(), &free_port().to_string());
    let mut other = DaemonHarness::new("");
    let daemon = other.daemon_section();
    other.write_config(&format!("{daemon}metrics = \"127.0.0.1:{}\"\n{service}", host.listen));
    let done = other.run_until_exit().expect_code(10);
    assert!(done.err.contains("for metrics"), "{}", done.err);
    other.configure("");
    other.start();
}
