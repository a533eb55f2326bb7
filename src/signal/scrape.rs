//! Reads the counters of a release from its metrics page.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};

use crate::config::{self, Address, ScrapeTarget, Selector};
use crate::model::{Moment, ProbeResult, Release, ScrapeResult};
use crate::signal::http_client::{Endpoint, ProbeError};
use crate::signal::prometheus_text::{self, TextFormat};
use crate::signal::{command_probe, http_client};

/// Largest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Samples older than this are stale.
const STALE_AFTER_MS: f64 = 5.0 * 60.0 * 1_000.0;
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

    /// Reads the counters once; `now` is in milliseconds since 1970. Takes no longer than the scrape's
    /// timeout.
    pub async fn scrape(&self, now: Moment) -> ScrapeResult {
        match tokio::time::timeout(self.timeout, self.fetch(now)).await {
            Ok(Ok(result)) => result,
            Ok(Err(fault)) => ScrapeResult::Down(fault.to_reply().to_string()),
            Err(_) => ScrapeResult::Down(ProbeResult::TimedOut.to_string()),
        }
    }

    async fn fetch(&self, now: Moment) -> Result<ScrapeResult, ProbeError> {
        let (client, url) = self.target.as_ref().map_err(|why| ProbeError::Other(why.clone()))?;
        let request = client.get(url.clone()).header(ACCEPT, "text/plain;version=0.0.4");
        let mut response = request.send().await?;
        let status = response.status().as_u16();
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
        let body = http_client::read_body(&mut response, RESPONSE_BYTES_MAX).await?;
        let text = String::from_utf8(body)
            .map_err(|_| ProbeError::Other("the response is not UTF-8".to_owned()))?;
        let format = match kind.contains("openmetrics") {
            true => TextFormat::OpenMetrics,
            false => TextFormat::Prometheus,
        };
        self.evaluate(&text, format, now).map_err(ProbeError::Other)
    }

    fn evaluate(
        &self,
        text: &str,
        format: TextFormat,
        now: Moment,
    ) -> Result<ScrapeResult, String> {
        // Without the last line break a number may lack digits.
        let has_end = format == TextFormat::Prometheus || text.trim_end().ends_with("# EOF");
        if !text.ends_with('\n') || !has_end {
            return Err("the response is incomplete".to_owned());
        }
        let sum = |selector| prometheus_text::sum_selected(text, selector, format);
        let (total, bad) = (sum(&self.total)?, sum(&self.bad)?);
        // Many servers create a series with its first request: a metric without a matching series
        // counted zero.
        if !total.metric_exists || !bad.metric_exists {
            return Ok(ScrapeResult::Missing);
        }
        let oldest_timestamp = [total.oldest_timestamp, bad.oldest_timestamp]
            .into_iter()
            .flatten()
            .fold(f64::INFINITY, f64::min);
        let age = now.0 as f64 - oldest_timestamp;
        if STALE_AFTER_MS < age && age.is_finite() {
            return Ok(ScrapeResult::Stale((age / 1_000.0) as u64));
        }
        let (total, bad) = (total.value.unwrap_or(0.0), bad.value.unwrap_or(0.0));
        if total.is_nan() || bad.is_nan() {
            return Ok(ScrapeResult::NotANumber);
        }
        let started = match &self.start_time {
            Some(started) => sum(started)?.value.filter(|it| it.is_finite()),
            None => None,
        };
        Ok(ScrapeResult::Sample { total, bad, started })
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
            http_client::client_for(endpoint(path), scrape.timeout)?,
            http_client::url_for(endpoint(path))?,
        )),
        ScrapeTarget::Url(url) => {
            let text =
                command_probe::fill_placeholders(std::slice::from_ref(url), address, release)
                    .concat();
            let url = Url::parse(&text).map_err(|error| format!("{text}: {error}"))?;
            Ok((http_client::client_for_any_url(scrape.timeout)?, url))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ReleaseNumber, Slot};

    const NOW: Moment = Moment(1_800_000_000_000);

    fn scraper() -> Scraper {
        let scrape = config::ScrapeSettings {
            target: ScrapeTarget::Path("/metrics".to_owned()),
            total: Selector::parse("requests_total").unwrap(),
            bad: Selector::parse("requests_total{code=~\"5..\"}").unwrap(),
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
        };
        Scraper::new(&scrape, &Address::Tcp(([127, 0, 0, 1], 9).into()), "localhost", &release)
    }

    #[test]
    fn each_page_has_its_result() {
        let scraper = scraper();
        let read = |text: &str| scraper.evaluate(text, TextFormat::Prometheus, NOW);
        let sample = |total, bad, started| Ok(ScrapeResult::Sample { total, bad, started });
        let whole = "requests_total{code=\"200\"} 90\nrequests_total{code=\"500\"} 10\n";
        assert_eq!(read(whole), sample(100.0, 10.0, None));
        let text = format!("{whole}process_start_time_seconds 1.7e+09\n");
        assert_eq!(read(&text), sample(100.0, 10.0, Some(1.7e9)));
        assert_eq!(read("requests_total{code=\"200\"} 5\n"), sample(5.0, 0.0, None));
        assert_eq!(read("# TYPE requests_total counter\n"), sample(0.0, 0.0, None));
        assert_eq!(read("other 1\n"), Ok(ScrapeResult::Missing));
        assert_eq!(read("requests_total NaN\n"), Ok(ScrapeResult::NotANumber));
        assert_eq!(read("requests_total 1 1799999600000\n"), Ok(ScrapeResult::Stale(400)));
        assert_eq!(read("requests_total 1 1799999900000\n"), sample(1.0, 0.0, None));
        assert!(read("requests_total 10").is_err(), "cut off: it may have been 100");
        assert!(
            scraper.evaluate("requests_total 10\n", TextFormat::OpenMetrics, NOW).is_err(),
            "no # EOF"
        );
        let open = "requests_total 10 1799999600.0\n# EOF\n";
        assert_eq!(
            scraper.evaluate(open, TextFormat::OpenMetrics, NOW),
            Ok(ScrapeResult::Stale(400))
        );
        assert!(read("requests_total x\n").is_err());
    }
}
