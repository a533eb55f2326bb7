//! Scrapes of pages that Prometheus reads, and of those that it refuses.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rollbackd::config::{ScrapeSettings, ScrapeTarget, Selector};
use rollbackd::model::{Moment, ScrapeResult};
use rollbackd::signal::Scraper;

use super::fake_server::{FakeResponse, FakeServer};
use super::release;

const PAGE: &str = "calls_total{code=\"200\"} 90\ncalls_total{code=\"500\"} 10\n";

async fn scrape(fake: &FakeServer, total: &str) -> ScrapeResult {
    let settings = ScrapeSettings {
        target: ScrapeTarget::Path("/metrics".to_owned()),
        total: Selector::parse(total).unwrap(),
        bad: Selector::parse("calls_total{code=\"500\"}").unwrap(),
        interval: Duration::from_secs(5),
        timeout: Duration::from_millis(1500),
    };
    Scraper::new(&settings, &fake.address, "localhost:8080", &release())
        .scrape(Moment(1_800_000_000_000))
        .await
}

fn sample() -> ScrapeResult {
    ScrapeResult::Sample { total: 100.0, bad: 10.0, started: None, bad_missing: false }
}

fn page(headers: &str, body: &[u8]) -> FakeResponse {
    let length = body.len();
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    FakeResponse::raw(bytes)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn pages_that_prometheus_reads() {
    type Make = fn() -> FakeResponse;
    let cases: [(&str, Make); 6] = [
        ("plain", || page("content-type: text/plain; version=0.0.4\r\n", PAGE.as_bytes())),
        ("no last line break", || page("", PAGE.trim_end().as_bytes())),
        ("gzip", || page("content-encoding: gzip\r\n", &gzip(PAGE))),
        ("gzip, no line break", || page("content-encoding: gzip\r\n", &gzip(PAGE.trim_end()))),
        ("twice", || page("", PAGE.repeat(2).as_bytes())),
        ("until the end", || FakeResponse::raw(format!("HTTP/1.0 200 OK\r\n\r\n{PAGE}"))),
    ];
    for (name, make) in cases {
        let fake = FakeServer::start(move |_| make()).await;
        assert_eq!(scrape(&fake, "calls_total").await, sample(), "{name}");
    }
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed() {
    let fake = FakeServer::start(|asked| match asked.head.starts_with("GET /metrics/ ") {
        true => page("", PAGE.as_bytes()),
        false => {
            FakeResponse::raw("HTTP/1.1 307 X\r\nlocation: /metrics/\r\ncontent-length: 0\r\n\r\n")
        }
    })
    .await;
    assert_eq!(scrape(&fake, "calls_total").await, sample());
}

#[tokio::test]
async fn pages_that_are_refused_have_a_reason() {
    type Make = fn() -> FakeResponse;
    let cases: [(&str, Make); 7] = [
        ("another host", || {
            FakeResponse::raw(
                "HTTP/1.1 307 X\r\nlocation: http://127.0.0.2:9/m\r\ncontent-length: 0\r\n\r\n",
            )
        }),
        ("status 307", || {
            FakeResponse::raw("HTTP/1.1 307 X\r\nlocation: /metrics\r\ncontent-length: 0\r\n\r\n")
        }),
        ("incomplete", || FakeResponse::raw(format!("HTTP/1.0 200 OK\r\n\r\n{}", PAGE.trim_end()))),
        ("compressed as br", || page("content-encoding: br\r\n", b"x")),
        ("is no gzip", || page("content-encoding: gzip\r\n", b"calls_total 1\n")),
        ("longer than", || page("content-encoding: gzip\r\n", &gzip(&"#\n".repeat(5 << 20)))),
        ("byte order mark", || page("", format!("\u{feff}{PAGE}").as_bytes())),
    ];
    for (part, make) in cases {
        let fake = FakeServer::start(move |_| make()).await;
        let result = scrape(&fake, "calls_total").await;
        let has_reason = matches!(&result, ScrapeResult::Down(what) if what.contains(part));
        assert!(has_reason, "{part}: {result:?}");
    }
}

#[tokio::test]
async fn names_of_prometheus_3_are_asked_for_where_a_selector_has_one() {
    for (total, escaping) in [("calls_total", false), ("{\"calls.total\"}", true)] {
        let fake = FakeServer::start(move |asked| {
            let accept = asked.header("accept").unwrap_or_default();
            let is_right = accept.contains("escaping=allow-utf-8") == escaping;
            page("", if is_right { b"{\"calls.total\",code=\"200\"} 7\n" } else { b"x 1\n" })
        })
        .await;
        let ScrapeResult::Sample { total: 7.0, .. } = scrape(&fake, total).await else {
            panic!("{total} was not found");
        };
    }
}
