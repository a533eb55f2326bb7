use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Url};

use super::exchange::{self, Fault};
use super::{command, exposition};
use crate::config::{self, Address, ScrapePlace, Selector};
use crate::model::Scrape as Answer;
use crate::model::{Moment, Release, Reply};

/// Longest answer that is read, in bytes.
const BODY_MAX: usize = 8 * 1024 * 1024;
/// Samples older than this are stale.
const STALE_MS: f64 = 5.0 * 60.0 * 1_000.0;
/// The metric that tells when the process began, in seconds since 1970.
const STARTED: &str = "process_start_time_seconds";

/// Reads the counters of one release.
#[derive(Debug)]
pub struct Scraper {
    timeout: Duration,
    total: Selector,
    bad: Selector,
    started: Option<Selector>,
    /// The client and where it asks, or why there is none.
    target: Result<(Client, Url), String>,
}

impl Scraper {
    /// Gets ready to read the counters of `release`, which runs at `address`. Asks nothing yet.
    pub fn new(scrape: &config::Scrape, address: &Address, release: &Release) -> Self {
        Self {
            timeout: scrape.timeout,
            total: scrape.total.clone(),
            bad: scrape.bad.clone(),
            started: Selector::parse(STARTED).ok(),
            target: target(scrape, address, release),
        }
    }

    /// Reads them once; `now` is the daemon's clock, in milliseconds since 1970. Takes no longer
    /// than the scrape's timeout.
    pub async fn ask(&self, now: Moment) -> Answer {
        match tokio::time::timeout(self.timeout, self.get(now)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(fault)) => Answer::Down(fault.reply().to_string()),
            Err(_) => Answer::Down(Reply::Late.to_string()),
        }
    }

    async fn get(&self, now: Moment) -> Result<Answer, Fault> {
        let (client, url) = self.target.as_ref().map_err(|why| Fault::Wrong(why.clone()))?;
        let asked = client.get(url.clone()).header(ACCEPT, "text/plain;version=0.0.4");
        let mut answer = asked.send().await?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Fault::Wrong(format!("status {status}, not 200")));
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if kind.contains("html") || kind.contains("json") || kind.contains("protobuf") {
            let kind = exchange::brief(&kind);
            return Err(Fault::Wrong(format!("the answer is {kind}, not the text of Prometheus")));
        }
        let body = exchange::body(&mut answer, BODY_MAX).await?;
        let text = String::from_utf8(body)
            .map_err(|_| Fault::Wrong("the answer is not UTF-8 text".to_owned()))?;
        self.read(&text, kind.contains("openmetrics"), now).map_err(Fault::Wrong)
    }

    /// What the counters in a text come to.
    fn read(&self, text: &str, openmetrics: bool, now: Moment) -> Result<Answer, String> {
        // Without its last line break it was cut off, and a number may lack its last digits.
        let whole = text.ends_with('\n') && (!openmetrics || text.trim_end().ends_with("# EOF"));
        if !whole {
            return Err("the answer is cut off".to_owned());
        }
        let sum = |selector| exposition::sum(text, selector, openmetrics);
        let (total, bad) = (sum(&self.total)?, sum(&self.bad)?);
        // Series often come into being with their first request; a metric that is known and has
        // none that fit counted none.
        if !total.known || !bad.known {
            return Ok(Answer::Missing);
        }
        let taken = [total.at, bad.at].into_iter().flatten().fold(f64::INFINITY, f64::min);
        let age = now.0 as f64 - taken;
        if STALE_MS < age && age.is_finite() {
            return Ok(Answer::Stale((age / 1_000.0) as u64));
        }
        let (total, bad) = (total.value.unwrap_or(0.0), bad.value.unwrap_or(0.0));
        if total.is_nan() || bad.is_nan() {
            return Ok(Answer::NotANumber);
        }
        let started = match &self.started {
            Some(started) => sum(started)?.value.filter(|it| it.is_finite()),
            None => None,
        };
        Ok(Answer::Sample { total, bad, started })
    }
}

fn target(
    scrape: &config::Scrape,
    address: &Address,
    release: &Release,
) -> Result<(Client, Url), String> {
    match &scrape.place {
        ScrapePlace::Path(path) => {
            Ok((exchange::client(address, scrape.timeout)?, exchange::url(address, path)?))
        }
        ScrapePlace::Url(url) => {
            let text = command::fill(std::slice::from_ref(url), address, release).concat();
            let url = Url::parse(&text).map_err(|error| format!("{text}: {error}"))?;
            Ok((exchange::client_anywhere(scrape.timeout)?, url))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Number, Slot};

    const NOW: Moment = Moment(1_800_000_000_000);

    fn scraper() -> Scraper {
        let scrape = config::Scrape {
            place: ScrapePlace::Path("/metrics".to_owned()),
            total: Selector::parse("requests_total").unwrap(),
            bad: Selector::parse("requests_total{code=~\"5..\"}").unwrap(),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        };
        let release = Release {
            version: "v2".to_owned(),
            number: Number(2),
            slot: Slot("blue".to_owned()),
            artifact: None,
            digest: None,
            set: BTreeMap::new(),
        };
        Scraper::new(&scrape, &Address::Tcp(([127, 0, 0, 1], 9).into()), &release)
    }

    #[test]
    fn each_text_has_its_answer() {
        let scraper = scraper();
        let read = |text: &str| scraper.read(text, false, NOW);
        let sample = |total, bad, started| Ok(Answer::Sample { total, bad, started });
        let whole = "requests_total{code=\"200\"} 90\nrequests_total{code=\"500\"} 10\n";
        assert_eq!(read(whole), sample(100.0, 10.0, None));
        let text = format!("{whole}process_start_time_seconds 1.7e+09\n");
        assert_eq!(read(&text), sample(100.0, 10.0, Some(1.7e9)));
        assert_eq!(read("requests_total{code=\"200\"} 5\n"), sample(5.0, 0.0, None));
        assert_eq!(read("# TYPE requests_total counter\n"), sample(0.0, 0.0, None));
        assert_eq!(read("other 1\n"), Ok(Answer::Missing));
        assert_eq!(read("requests_total NaN\n"), Ok(Answer::NotANumber));
        assert_eq!(read("requests_total 1 1799999600000\n"), Ok(Answer::Stale(400)));
        assert_eq!(read("requests_total 1 1799999900000\n"), sample(1.0, 0.0, None));
        assert!(read("requests_total 10").is_err(), "cut off: it may have been 100");
        assert!(scraper.read("requests_total 10\n", true, NOW).is_err(), "no # EOF");
        let open = "requests_total 10 1799999600.0\n# EOF\n";
        assert_eq!(scraper.read(open, true, NOW), Ok(Answer::Stale(400)));
        assert!(read("requests_total x\n").is_err());
    }
}
