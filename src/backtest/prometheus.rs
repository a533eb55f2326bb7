//! A range of counters from Prometheus, through its HTTP API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use reqwest::{Client, Url};
use serde::Deserialize;

use crate::backtest::source::{Block, Row, Source};
use crate::backtest::{injection, location};
use crate::judge::counter::{Counter, CounterChange};
use crate::model::{Moment, ScrapeResult};

/// Prometheus gives no more points than this for one series.
const POINTS_MAX: u64 = 11_000;
/// Longest answer that is read.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time that one answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which counters, of which time.
#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct PrometheusOptions {
    /// Replay a range from this Prometheus, such as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL", requires_all = ["total", "bad", "start", "end"])]
    prometheus: Option<Url>,
    /// A counter of all requests of the new release: one series, such as `sum(requests_total)`.
    #[arg(long, value_name = "EXPR", requires = "prometheus")]
    total: Option<String>,
    /// A counter of the bad ones among them.
    #[arg(long, value_name = "EXPR", requires = "prometheus")]
    bad: Option<String>,
    /// The same for the old release.
    #[arg(long, value_name = "EXPR", requires_all = ["prometheus", "old_bad"])]
    old_total: Option<String>,
    /// The bad ones of the old release.
    #[arg(long, value_name = "EXPR", requires_all = ["prometheus", "old_total"])]
    old_bad: Option<String>,
    /// When to begin: a date, an RFC 3339 time, or seconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = location::parse_moment, requires = "prometheus")]
    start: Option<Moment>,
    /// When to end.
    #[arg(long, value_name = "TIME", value_parser = location::parse_moment, requires = "prometheus")]
    end: Option<Moment>,
    /// The time from one sample to the next; not shorter than it scrapes.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_step)]
    step: Duration,
}

/// What Prometheus says to a query.
#[derive(Debug, Deserialize)]
struct QueryResponse {
    #[serde(default)]
    error: String,
    data: Option<QueryData>,
}

#[derive(Debug, Deserialize)]
struct QueryData {
    result: Vec<Series>,
}

/// Seconds since 1970, and the value as text.
#[derive(Debug, Deserialize)]
struct Series {
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// Samples by time, in milliseconds.
type Samples = BTreeMap<u64, f64>;

impl PrometheusOptions {
    /// Whether anything is to be asked.
    pub(crate) fn is_requested(&self) -> bool {
        self.prometheus.is_some()
    }
}

/// Asks for the range.
pub(crate) async fn load(options: &PrometheusOptions) -> Result<Source, String> {
    let PrometheusOptions { prometheus: Some(base), start: Some(start), end: Some(end), .. } =
        options
    else {
        return Err("--prometheus needs --total, --bad, --start and --end".to_owned());
    };
    if base.scheme() != "http" {
        return Err(format!(
            "{base}: only http is spoken here; use a tunnel, or run it over there"
        ));
    }
    if end <= start {
        return Err("--end is not after --start; write a later one".to_owned());
    }
    let points = end.since(*start).as_millis() / options.step.as_millis().max(1);
    if points >= u128::from(POINTS_MAX) {
        return Err(format!(
            "{points} points are more than the {POINTS_MAX} that Prometheus gives at once; write a \
             longer --step or a shorter range"
        ));
    }
    let client = Client::builder().no_proxy().timeout(TIMEOUT).build();
    let client = client.map_err(|error| format!("failed to prepare the query: {error}"))?;
    let query_optional = async |expression: &Option<String>| match expression {
        Some(expression) => {
            query_range(&client, base, expression, (*start, *end), options.step).await
        }
        None => Ok(Samples::new()),
    };
    let new = (query_optional(&options.total).await?, query_optional(&options.bad).await?);
    let old = (query_optional(&options.old_total).await?, query_optional(&options.old_bad).await?);
    let rows = join_rows(&new, &old);
    let Some(first) = new.0.keys().next().filter(|_| !rows.is_empty()) else {
        return Err(format!(
            "{base}: no two samples in that range; write an earlier --start or a \
                            later --end"
        ));
    };
    Ok(Source::from_rows("prometheus".to_owned(), Moment(*first), rows))
}

/// Both releases, sample by sample. Where one counter is missing, nothing is known.
fn join_rows(new: &(Samples, Samples), old: &(Samples, Samples)) -> Vec<Row> {
    let times: BTreeSet<u64> = new.0.keys().chain(old.0.keys()).copied().collect();
    let (mut of_new, mut of_old) = (Counter::default(), Counter::default());
    let next_block = |counter: &mut Counter, (total, bad): &(Samples, Samples), at| {
        let (total, bad) = (*total.get(&at)?, *bad.get(&at)?);
        let sample = ScrapeResult::Sample { total, bad, started: None };
        match counter.add_scrape(Moment(at), &sample) {
            Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) => {
                Some(Block::from(delta))
            }
            Ok(CounterChange::First | CounterChange::Reset) | Err(_) => None,
        }
    };
    let row = |at| {
        let (new, old) = (next_block(&mut of_new, new, at), next_block(&mut of_old, old, at));
        (new.is_some() || old.is_some()).then_some(Row { end: Moment(at), new, old })
    };
    times.into_iter().filter_map(row).collect()
}

async fn query_range(
    client: &Client,
    base: &Url,
    expression: &str,
    (start, end): (Moment, Moment),
    step: Duration,
) -> Result<Samples, String> {
    let mut url = base.clone();
    url.set_path(&format!("{}/api/v1/query_range", base.path().trim_end_matches('/')));
    url.query_pairs_mut()
        .append_pair("query", expression)
        .append_pair("start", &format_seconds(start.0))
        .append_pair("end", &format_seconds(end.0))
        .append_pair("step", &step.as_secs_f64().to_string());
    let failed = |what: String| format!("{base}, `{expression}`: {what}");
    let body = fetch_body(client, url).await.map_err(failed)?;
    let response: QueryResponse = serde_json::from_slice(&body)
        .map_err(|error| failed(format!("this is not Prometheus: {error}; check the address")))?;
    let Some(QueryData { result }) = response.data else {
        return Err(failed(format!("{}; correct the expression", response.error)));
    };
    let [series] = result.as_slice() else {
        return Err(failed(match result.len() {
            0 => "no series; correct it, or add `or vector(0)` where none means 0".to_owned(),
            many => format!("{many} series; write sum(...) around it"),
        }));
    };
    Ok(series.values.iter().filter_map(parse_sample).collect())
}

async fn fetch_body(client: &Client, url: Url) -> Result<Vec<u8>, String> {
    let describe = |error: reqwest::Error| {
        // The first ones only say that there was a request.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        format!("no answer: {cause}; check the address")
    };
    let mut response = client.get(url).send().await.map_err(describe)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(describe)? {
        if body.len() + part.len() > BYTES_MAX {
            return Err("more than 64 MiB; write a longer --step or a shorter range".to_owned());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

fn parse_sample((at, value): &(f64, String)) -> Option<(u64, f64)> {
    Some(((at * 1000.0).round() as u64, value.parse().ok()?))
}

fn format_seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn parse_step(text: &str) -> Result<Duration, String> {
    let step = injection::parse_duration(text).filter(|it| *it >= Duration::from_millis(1));
    step.ok_or_else(|| "write a time such as 5s or 1m".to_owned())
}
