//! Reads the counters of a release from its metrics page.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
};
use reqwest::{Client, Response, Url};

use crate::config::{self, Address, ScrapeTarget, Selector};
use crate::model::{Moment, ProbeResult, Release, ScrapeResult};
use crate::signal::http_client::{Endpoint, ProbeError};
use crate::signal::text_format::TextFormat;
use crate::signal::{command_probe, counter_sum, http_client};

/// Largest page that is read, in bytes, compressed and not.
const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is accepted where each name in the selectors is one of letters, digits and `_`: a server
/// escapes its other names.
const ACCEPTED: &str = "text/plain;version=0.0.4";
/// What is accepted where a selector has another name.
const ACCEPTED_UTF8: &str =
    "text/plain;version=1.0.0;escaping=allow-utf-8,text/plain;version=0.0.4;q=0.5";
/// Samples older than this are stale.
const STALE_AFTER_MS: f64 = 5.0 * 60.0 * 1_000.0;
/// Prometheus leaves samples out that are later than this: `maxAheadTime` of its `scrape/scrape.go`.
const AHEAD_MAX_MS: f64 = 10.0 * 60.0 * 1_000.0;
/// The metric with the start time of the process, in seconds since 1970.
const START_TIME_METRIC: &str = "process_start_time_seconds";

/// Reads the counters of one release.
#[derive(Debug)]
pub struct Scraper {
    timeout: Duration,
    total: Selector,
    bad: Selector,
    start_time: Option<Selector>,
    /// The client and its URL, or why there is none.
    target: Result<(Client, Url), String>,
}

impl Scraper {
    /// A scraper of `release`, which runs at `address` and is called `host`. Sends nothing yet.
    pub fn new(
        scrape: &config::ScrapeSettings,
        address: &Address,
        host: &str,
        release: &Release,
    ) -> Self {
        Self {
            timeout: scrape.timeout,
            total: scrape.total.clone(),
            bad: scrape.bad.clone(),
            start_time: Selector::parse(START_TIME_METRIC).ok(),
            target: scrape_target(scrape, address, host, release),
        }
    }

    /// Reads the counters once; `wall` is the wall's time. Takes no longer than the scrape's timeout.
    pub async fn scrape(&self, wall: Moment) -> ScrapeResult {
        match tokio::time::timeout(self.timeout, self.fetch(wall)).await {
            Ok(Ok(result)) => result,
            Ok(Err(fault)) => ScrapeResult::Down(fault.to_reply().to_string()),
            Err(_) => ScrapeResult::Down(ProbeResult::TimedOut.to_string()),
        }
    }

    async fn fetch(&self, wall: Moment) -> Result<ScrapeResult, ProbeError> {
        let (client, url) = self.target.as_ref().map_err(|why| ProbeError::Other(why.clone()))?;
        let needs_utf8 = self.total.needs_utf8_names() || self.bad.needs_utf8_names();
        let accepted = if needs_utf8 { ACCEPTED_UTF8 } else { ACCEPTED };
        let request = client.get(url.clone()).header(ACCEPT, accepted);
        let mut response = request.header(ACCEPT_ENCODING, "gzip").send().await?;
        let status = response.status().as_u16();
        if (300..400).contains(&status) {
            return Err(ProbeError::Other(format!("status {status}, a redirect to another host")));
        }
        if status != 200 {
            return Err(ProbeError::Other(format!("status {status}, not 200")));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if kind.contains("html") || kind.contains("json") || kind.contains("protobuf") {
            let kind = http_client::shorten(&kind);
            return Err(ProbeError::Other(format!(
                "the response is {kind}, not the text format of Prometheus"
            )));
        }
        let format = TextFormat::of(&kind);
        let page = read_page(&mut response).await?;
        self.evaluate(&page, format, wall).map_err(ProbeError::Other)
    }

    fn evaluate(
        &self,
        page: &[u8],
        format: TextFormat,
        wall: Moment,
    ) -> Result<ScrapeResult, String> {
        let start_time = self.start_time.as_ref().unwrap_or(&self.total);
        let [total, bad, started] = counter_sum::sum_counters(
            page,
            [&self.total, &self.bad, start_time],
            format,
            wall.0 as f64 + AHEAD_MAX_MS,
        )?;
        if let Some(what) = total.no_counter.as_ref().or(bad.no_counter.as_ref()) {
            return Ok(ScrapeResult::WrongMetric(what.clone()));
        }
        // Many servers create a series with its first request: a metric without a matching series
        // counted zero. Others create the metric with its first error.
        if !total.exists {
            let similar = |name| {
                let metric = self.total.metric();
                ScrapeResult::WrongMetric(format!(
                    "{metric} is not on the page; did you mean {name}?"
                ))
            };
            return Ok(total.similar.map_or(ScrapeResult::Missing, similar));
        }
        let newest = [total.newest_timestamp, bad.newest_timestamp];
        let newest = newest.into_iter().flatten().reduce(f64::max);
        let age = newest.map_or(0.0, |newest| wall.0 as f64 - newest);
        let has_untimed =
            |sum: &counter_sum::CounterSum| sum.newest_timestamp.is_none() && 0 < sum.series;
        if STALE_AFTER_MS < age && !has_untimed(&total) && !has_untimed(&bad) {
            return Ok(ScrapeResult::Stale((age / 1_000.0) as u64));
        }
        let bad_missing = !bad.exists;
        let (total, bad) = (total.value.unwrap_or(0.0), bad.value.unwrap_or(0.0));
        if total.is_nan() || bad.is_nan() {
            return Ok(ScrapeResult::NotANumber);
        }
        // With several of them the page adds up several processes.
        let is_one = self.start_time.is_some() && started.series == 1;
        let started = started.value.filter(|it| is_one && it.is_finite());
        Ok(ScrapeResult::Sample { total, bad, started, bad_missing })
    }
}

/// The page of a response, decompressed.
async fn read_page(response: &mut Response) -> Result<Vec<u8>, ProbeError> {
    let header = |name: &str| response.headers().get(name).and_then(|it| it.to_str().ok());
    let encoding =
        header(CONTENT_ENCODING.as_str()).unwrap_or("identity").trim().to_ascii_lowercase();
    let has_end =
        header(CONTENT_LENGTH.as_str()).is_some() || header(TRANSFER_ENCODING.as_str()).is_some();
    let body = http_client::read_body(response, RESPONSE_BYTES_MAX).await?;
    match encoding.as_str() {
        "gzip" | "x-gzip" => {
            let page = tokio::task::spawn_blocking(move || decompress(&body)).await;
            page.unwrap_or_else(|error| Err(error.to_string())).map_err(ProbeError::Other)
        }
        // Without its length, a number may lack digits where the last line break is missing.
        "identity" | "" if has_end || body.is_empty() || body.ends_with(b"\n") => Ok(body),
        "identity" | "" => Err(ProbeError::Other("the response is incomplete".to_owned())),
        other => {
            let other = http_client::shorten(other);
            Err(ProbeError::Other(format!("the response is compressed as {other}, not gzip")))
        }
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut page = Vec::new();
    let mut reader = MultiGzDecoder::new(body).take(RESPONSE_BYTES_MAX as u64 + 1);
    reader.read_to_end(&mut page).map_err(|error| format!("the response is no gzip: {error}"))?;
    match page.len() <= RESPONSE_BYTES_MAX {
        true => Ok(page),
        false => Err(format!("the response is longer than {} KiB", RESPONSE_BYTES_MAX / 1024)),
    }
}

fn scrape_target(
    scrape: &config::ScrapeSettings,
    address: &Address,
    host: &str,
    release: &Release,
) -> Result<(Client, Url), String> {
    let endpoint = |path| Endpoint { address, host, path };
    match &scrape.target {
        ScrapeTarget::Path(path) => Ok((
            http_client::scrape_client(Some(endpoint(path)), scrape.timeout)?,
            http_client::url_for(endpoint(path))?,
        )),
        ScrapeTarget::Url(url) => {
            let text =
                command_probe::fill_placeholders(std::slice::from_ref(url), address, release)
                    .concat();
            let url = Url::parse(&text).map_err(|error| format!("{text}: {error}"))?;
            Ok((http_client::scrape_client(None, scrape.timeout)?, url))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ReleaseNumber, Slot};

    const NOW: Moment = Moment(1_800_000_000_000);

    fn scraper(total: &str, bad: &str) -> Scraper {
        let scrape = config::ScrapeSettings {
            target: ScrapeTarget::Path("/metrics".to_owned()),
            total: Selector::parse(total).unwrap(),
            bad: Selector::parse(bad).unwrap(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        };
        let release = Release {
            version: "v2".to_owned(),
            number: ReleaseNumber(2),
            slot: Slot("blue".to_owned()),
            artifact: None,
            digest: None,
            environment: BTreeMap::new(),
            same_version: false,
        };
        Scraper::new(&scrape, &Address::Tcp(([127, 0, 0, 1], 9).into()), "localhost", &release)
    }

    fn read(text: &str) -> Result<ScrapeResult, String> {
        let scraper = scraper("requests_total", "requests_total{code=~\"5..\"}");
        scraper.evaluate(text.as_bytes(), TextFormat::Prometheus, NOW)
    }

    fn sample(total: f64, bad: f64, started: Option<f64>) -> Result<ScrapeResult, String> {
        Ok(ScrapeResult::Sample { total, bad, started, bad_missing: false })
    }

    #[test]
    fn each_page_has_its_result() {
        let whole = "requests_total{code=\"200\"} 90\nrequests_total{code=\"500\"} 10\n";
        assert_eq!(read(whole), sample(100.0, 10.0, None));
        assert_eq!(read(whole.trim_end()), sample(100.0, 10.0, None), "no last line break");
        let text = format!("{whole}process_start_time_seconds 1.7e+09\n");
        assert_eq!(read(&text), sample(100.0, 10.0, Some(1.7e9)));
        let text = format!(
            "{whole}process_start_time_seconds{{pid=\"1\"}} 5\nprocess_start_time_seconds{{pid=\"2\"}} 6\n"
        );
        assert_eq!(read(&text), sample(100.0, 10.0, None), "the page adds up two processes");
        assert_eq!(read("requests_total{code=\"200\"} 5\n"), sample(5.0, 0.0, None));
        assert_eq!(read("# TYPE requests_total counter\n"), sample(0.0, 0.0, None));
        assert_eq!(read("other 1\n"), Ok(ScrapeResult::Missing));
        assert_eq!(read("requests_total NaN\n"), Ok(ScrapeResult::NotANumber));
        assert_eq!(read("requests_total 1 1799999600000\n"), Ok(ScrapeResult::Stale(400)));
        assert_eq!(read("requests_total 1 1799999900000\n"), sample(1.0, 0.0, None));
        read("requests_total x\n").unwrap_err();
        read("requests_total 1\nanother line\n").unwrap_err();
    }

    #[test]
    fn a_metric_that_is_no_counter_or_not_there_has_a_suggestion() {
        let what = |text: &str| match read(text) {
            Ok(ScrapeResult::WrongMetric(what)) => what,
            other => panic!("{other:?}"),
        };
        assert!(what("# TYPE requests_total gauge\nrequests_total 1\n").contains("is a gauge"));
        let text = what("reqests_total 1\n");
        assert!(text.ends_with("did you mean reqests_total?"), "{text}");
    }

    #[test]
    fn a_bad_counter_that_does_not_exist_yet_is_zero() {
        let scraper = scraper("requests_total", "errors_total");
        let read = |text: &str| scraper.evaluate(text.as_bytes(), TextFormat::Prometheus, NOW);
        let (total, bad, started, bad_missing) = (5.0, 0.0, None, true);
        let sample = ScrapeResult::Sample { total, bad, started, bad_missing };
        assert_eq!(read("requests_total 5\n"), Ok(sample));
        assert_eq!(read("errors_total 5\n"), Ok(ScrapeResult::Missing));
        let histogram = "requests_total 5\n# TYPE errors_total histogram\nerrors_total_count 1\n";
        assert!(matches!(read(histogram), Ok(ScrapeResult::WrongMetric(_))));
    }

    #[test]
    fn open_metrics_has_seconds_and_an_end() {
        let scraper = scraper("requests_total", "requests_total{code=~\"5..\"}");
        let read = |text: &str| scraper.evaluate(text.as_bytes(), TextFormat::OpenMetrics, NOW);
        read("requests_total 10\n").unwrap_err();
        let open = "requests_total 10 1799999600.0\n# EOF\n";
        assert_eq!(read(open), Ok(ScrapeResult::Stale(400)));
        assert_eq!(read("requests_total 10 1799999990.5\n# EOF"), sample(10.0, 0.0, None));
    }
}
