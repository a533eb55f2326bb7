//! Reads a range of counters from Prometheus, through its HTTP API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::{Client, Url};
use serde::Deserialize;

use crate::backtest::source::{Block, Row, Source};
use crate::judge::counter::{Counter, CounterChange};
use crate::model::{Moment, ScrapeResult};
use crate::tls;

/// Prometheus returns at most this many points of a series.
const POINTS_MAX: u64 = 11_000;
/// Largest response that is read.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time for one response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Which counters, in which range.
#[derive(Debug)]
pub(crate) struct RangeQuery {
    pub(crate) base: Url,
    pub(crate) new: CounterPair<String>,
    pub(crate) old: Option<CounterPair<String>>,
    pub(crate) start: Moment,
    pub(crate) end: Moment,
    pub(crate) step: Duration,
}

/// A counter of all requests, and one of the bad ones among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CounterPair<T> {
    pub(crate) total: T,
    pub(crate) bad: T,
}

/// The response to a query.
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

/// Reads the range.
pub(crate) async fn load(query: &RangeQuery) -> Result<Source, String> {
    let RangeQuery { base, new, old, start, end, step } = query;
    if base.scheme() != "http" {
        return Err(format!(
            "{base}: only http is supported; use a tunnel, or run backtest on that host"
        ));
    }
    if end <= start {
        return Err("--end is not after --start; write a later one".to_owned());
    }
    let points = end.since(*start).as_millis() / step.as_millis().max(1);
    if points >= u128::from(POINTS_MAX) {
        return Err(format!(
            "{points} points; Prometheus returns at most {POINTS_MAX}: write a longer --step or a \
             shorter range"
        ));
    }
    let client = Client::builder().tls_backend_preconfigured(tls::no_roots()?);
    let client = client.no_proxy().timeout(TIMEOUT).build();
    let client = client.map_err(|error| format!("cannot prepare the query: {error}"))?;
    let read = async |expressions: &CounterPair<String>| {
        let total = query_range(&client, query, &expressions.total).await?;
        let bad = query_range(&client, query, &expressions.bad).await?;
        Ok::<_, String>(CounterPair { total, bad })
    };
    let new = read(new).await?;
    let old = match old {
        Some(old) => read(old).await?,
        None => CounterPair::default(),
    };
    let rows = join_rows(&new, &old);
    let Some(first) = new.total.keys().next().filter(|_| !rows.is_empty()) else {
        return Err(format!(
            "{base}: fewer than two samples in the range; write an earlier --start or a later --end"
        ));
    };
    Ok(Source::from_rows("prometheus".to_owned(), Moment(*first), rows))
}

/// Joins the samples of both releases by time. Without both counters, a release has no block.
fn join_rows(new: &CounterPair<Samples>, old: &CounterPair<Samples>) -> Vec<Row> {
    let times: BTreeSet<u64> = new.total.keys().chain(old.total.keys()).copied().collect();
    let (mut new_counter, mut old_counter) = (Counter::default(), Counter::default());
    let next_block = |counter: &mut Counter, samples: &CounterPair<Samples>, at| {
        let (total, bad) = (*samples.total.get(&at)?, *samples.bad.get(&at)?);
        let sample = ScrapeResult::Sample { total, bad, started: None, bad_missing: false };
        match counter.add_scrape(Moment(at), &sample) {
            Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) => {
                Some(Block::from(delta))
            }
            Ok(CounterChange::First | CounterChange::Reset) | Err(_) => None,
        }
    };
    let row = |at| {
        let (new, old) =
            (next_block(&mut new_counter, new, at), next_block(&mut old_counter, old, at));
        (new.is_some() || old.is_some()).then_some(Row { end: Moment(at), new, old })
    };
    times.into_iter().filter_map(row).collect()
}

async fn query_range(
    client: &Client,
    query: &RangeQuery,
    expression: &str,
) -> Result<Samples, String> {
    let RangeQuery { base, start, end, step, .. } = query;
    let mut url = base.clone();
    url.set_path(&format!("{}/api/v1/query_range", base.path().trim_end_matches('/')));
    url.query_pairs_mut()
        .append_pair("query", expression)
        .append_pair("start", &format_seconds(start.0))
        .append_pair("end", &format_seconds(end.0))
        .append_pair("step", &step.as_secs_f64().to_string());
    let failed = |what: String| format!("{base}, `{expression}`: {what}");
    let body = fetch_body(client, url).await.map_err(failed)?;
    let response: QueryResponse = serde_json::from_slice(&body).map_err(|error| {
        failed(format!("the response is not from Prometheus: {error}; check the address"))
    })?;
    let Some(QueryData { result }) = response.data else {
        return Err(failed(format!("{}; correct the expression", response.error)));
    };
    let [series] = result.as_slice() else {
        return Err(failed(match result.len() {
            0 => "no series; correct it, or add `or vector(0)` if no series means 0".to_owned(),
            many => format!("{many} series; write sum(...) around it"),
        }));
    };
    Ok(series.values.iter().filter_map(parse_sample).collect())
}

async fn fetch_body(client: &Client, url: Url) -> Result<Vec<u8>, String> {
    let describe = |error: reqwest::Error| {
        // The outer errors only repeat the request.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        format!("no response: {cause}; check the address")
    };
    let mut response = client.get(url).send().await.map_err(describe)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(describe)? {
        if body.len() + part.len() > BYTES_MAX {
            return Err(format!(
                "more than {} MiB; write a longer --step or a shorter range",
                BYTES_MAX >> 20
            ));
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
