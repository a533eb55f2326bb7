//! The server's own counters: a breach that only they show, and counters that disappear.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rollbackd::model::{Guard, TimelineEvent};

use crate::support::{DaemonHarness, wait_until};

/// Counters by slot, over HTTP: each scrape adds requests and bad requests.
#[derive(Clone, Default)]
struct Exporter(Arc<Mutex<BTreeMap<String, Counters>>>);

#[derive(Clone, Copy, Default)]
struct Counters {
    total: u64,
    bad: u64,
    more: (u64, u64),
    unavailable: bool,
}

impl Exporter {
    fn start() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let exporter = Self::default();
        let shared = exporter.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let _: usize = BufReader::new(&stream).read_line(&mut line).unwrap_or_default();
                let slot = line.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
                let answer = shared.exposition(&slot);
                // The daemon may have exited.
                let _: std::io::Result<()> = stream.write_all(answer.as_bytes());
            }
        });
        (exporter, port)
    }

    fn set(&self, slot: &str, more: (u64, u64), silent: bool) {
        let mut all = self.0.lock().unwrap();
        let counters = all.entry(slot.to_owned()).or_default();
        (counters.more, counters.unavailable) = (more, silent);
    }

    fn exposition(&self, slot: &str) -> String {
        let mut all = self.0.lock().unwrap();
        let it = all.entry(slot.to_owned()).or_default();
        (it.total, it.bad) = (it.total + it.more.0, it.bad + it.more.1);
        if it.unavailable {
            return "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned();
        }
        let (good, bad) = (it.total - it.bad, it.bad);
        let body = format!(
            "# TYPE calls_total counter\ncalls_total{{code=\"200\",path=\"/a,b\"}} {good}\n\
             calls_total{{code=\"500\",path=\"/\"}} {bad}\n"
        );
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: \
             {length}\r\nConnection: close\r\n\r\n{body}"
        )
    }
}

/// A host whose releases have the counters of the exporter.
fn host_with_exporter(more: &str) -> (DaemonHarness, Exporter) {
    let (exporter, port) = Exporter::start();
    let scrape = format!(
        "scrape = {{ url = \"http://127.0.0.1:{port}/{{slot}}\", total = \"calls_total\", \
         bad = 'calls_total{{code=~\"5..\"}}', every = \"1s\", timeout = \"1s\" }}\n{more}"
    );
    (DaemonHarness::with_v1(&scrape), exporter)
}

#[test]
fn breach_seen_only_by_scraped_counters_is_rolled_back() {
    let (host, exporter) = host_with_exporter("");
    exporter.set("blue", (100, 0), false);
    exporter.set("green", (100, 0), false);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    exporter.set("green", (100, 50), false);
    wait_until("v2 is found by its counters", || host.kinds(2).contains(&"detected"));
    let entries = host.entries(2);
    let detected = entries.iter().find(|it| it.event.kind() == "detected").unwrap();
    assert!(detected.because.contains("own counters: "), "{}", detected.because);
    wait_until("v1 is back", || host.phase() == "steady");
}

#[test]
fn bake_waits_for_missing_counters() {
    let (host, exporter) =
        host_with_exporter("bake = \"8s\"\nobjective = \"80%\"\ndeadline = \"1s\"");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    exporter.set("green", (1, 0), true);
    let blocked =
        |it: &TimelineEvent| matches!(it, TimelineEvent::Blocked { guard: Guard::NoData, .. });
    wait_until("nothing is known of v2", || host.entries(2).iter().any(|it| blocked(&it.event)));
    exporter.set("green", (1, 0), false);
    wait_until("it is accepted", || host.kinds(2).contains(&"accepted"));
    let entries = host.entries(2);
    let at =
        |kind: &str| entries.iter().find(|it| it.event.kind() == kind).unwrap().since_deploy_ms;
    let told = &entries.iter().find(|it| blocked(&it.event)).unwrap().because;
    assert!(told.contains("its scrape is down: status 503"), "{told}");
    let waited = at("cleared") - at("blocked");
    let baked = at("accepted") - at("switched");
    assert!(8_000 + waited <= baked + 50, "baked {baked} ms, of which {waited} ms blind");
}
