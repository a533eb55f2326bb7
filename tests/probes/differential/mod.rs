//! Our reader of metrics against the Prometheus of Debian, which tests/run unpacks: what it accepts is
//! accepted with the same sums, and what it refuses is refused. Where the two differ, the page says why.

mod edge_pages;
mod prometheus;
mod real_pages;

use std::sync::Arc;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::config::{ScrapeSettings, ScrapeTarget, Selector};
use rollbackd::model::{Moment, ScrapeResult};
use rollbackd::signal::Scraper;

use super::fake_server::{FakeResponse, FakeServer};
use super::release;
use prometheus::{Prometheus, Target};

/// A response to a scrape, and what it should come to.
pub(crate) struct Page {
    pub(crate) name: String,
    /// `content-type: ...\r\n` and others.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
    /// Lines with a value, of a page that has no error.
    pub(crate) samples: Option<usize>,
    /// Counters whose sums are compared.
    pub(crate) selectors: Vec<String>,
    pub(crate) expected: Expected,
}

/// What a page should come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Expected {
    /// What it is for Prometheus.
    Same,
    /// Prometheus 2 refuses what Prometheus 3 or the specification allows. It has this sum here.
    AllowedSince2(f64),
    /// Prometheus 2 reads it, and this is refused on purpose: a part of the reason.
    RefusedHere(&'static str),
    /// Prometheus has no sample of it, and rollbackd has a sum on purpose.
    SummedHere(f64),
}

#[tokio::test]
async fn prometheus_and_rollbackd_read_the_same() {
    let now = Clock::wall_moment().0;
    let mut pages = edge_pages::edge_pages(now);
    pages.extend(real_pages::recorded_pages());
    pages.extend(real_pages::pages_of_clients().await);
    let pages = Arc::new(pages);
    let served = Arc::clone(&pages);
    let fake = FakeServer::start(move |asked| {
        let path = asked.head.split(' ').nth(1).unwrap_or_default();
        match path.trim_start_matches('/').parse::<usize>().ok().and_then(|it| served.get(it)) {
            Some(page) => response(page),
            None => FakeResponse::with(404, "", ""),
        }
    })
    .await;
    let prometheus = Prometheus::start(&fake.address.to_string(), pages.len());
    let targets = prometheus.targets(pages.len()).await;
    let mut differences = Vec::new();
    for (number, (page, target)) in pages.iter().zip(&targets).enumerate() {
        if let Some(samples) = page.samples {
            assert_eq!((target.is_up, target.samples), (true, samples), "{}", page.name);
        }
        let sums = prometheus.sums(number, &page.selectors).await;
        for (selector, sum) in page.selectors.iter().zip(sums) {
            let ours = scrape(&fake, number, selector, now).await;
            if let Err(why) = compare(page, target, sum, &ours) {
                let why =
                    format!("{why}; Prometheus: {target:?}, sum {sum:?}; rollbackd: {ours:?}");
                differences.push(format!("{}, {selector}: {why}", page.name));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Compares what both make of a counter. Prometheus has no sum for a page that it refuses, for a metric
/// without a series, and for series that are stale.
fn compare(
    page: &Page,
    target: &Target,
    sum: Option<f64>,
    ours: &ScrapeResult,
) -> Result<(), &'static str> {
    let is_up = match (page.expected, ours) {
        (Expected::AllowedSince2(expected), ScrapeResult::Sample { total, .. }) => {
            let is_as_expected = !target.is_up && *total == expected;
            return is_as_expected.then_some(()).ok_or("Prometheus 2 should refuse it");
        }
        (Expected::RefusedHere(part), ScrapeResult::Down(why)) => {
            let is_as_expected = target.is_up && why.contains(part);
            return is_as_expected.then_some(()).ok_or("another reason, or Prometheus refuses it");
        }
        (Expected::SummedHere(expected), ScrapeResult::Sample { total, .. }) => {
            let is_as_expected = target.is_up && sum != Some(expected) && *total == expected;
            return is_as_expected.then_some(()).ok_or("another sum");
        }
        (Expected::Same, _) => target.is_up,
        _ => return Err("not as expected"),
    };
    let is_same = match ours {
        ScrapeResult::Down(_) => !is_up,
        ScrapeResult::Sample { total, .. } => is_up && is_close(*total, sum.unwrap_or(0.0)),
        ScrapeResult::NotANumber => is_up && sum.is_some_and(f64::is_nan),
        ScrapeResult::Missing | ScrapeResult::Stale(_) => is_up && sum.is_none(),
        ScrapeResult::WrongMetric(why) => is_up && sum.is_none() && why.contains("in the future"),
    };
    is_same.then_some(()).ok_or("they differ")
}

/// The order of additions is not defined.
fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

async fn scrape(fake: &FakeServer, number: usize, selector: &str, now: u64) -> ScrapeResult {
    let selector = Selector::parse(selector).unwrap();
    let settings = ScrapeSettings {
        target: ScrapeTarget::Path(format!("/{number}")),
        total: selector.clone(),
        bad: selector,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    };
    let address = &fake.address;
    Scraper::new(&settings, address, "localhost:8080", &release()).scrape(Moment(now)).await
}

fn response(page: &Page) -> FakeResponse {
    let (headers, length) = (&page.headers, page.body.len());
    let mut bytes =
        format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(&page.body);
    FakeResponse::raw(bytes)
}
