//! The counters that a selector names on a metrics page, added up.
//!
//! [`crate::signal::metrics_page`] reads names, labels and the form of each line. prometheus-parse
//! reads the numbers, from a page of the selected series under plain names: it drops or changes valid
//! lines (`foo{} 1`, names with colons, label values with `}`, `,` or `=`), so it never sees them.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use prometheus_parse::{Scrape, Value};

use crate::config::Selector;
use crate::signal::metrics_page::{Label, Line, PageReader, Sample};
use crate::signal::metrics_value::parse_number;
use crate::signal::text_format::TextFormat;

/// Different names on a page that are compared with a selector whose metric is not there.
const NAMES_MAX: usize = 4_096;
/// The suffixes of the series of a family, as its TYPE line gives it.
const SUFFIXES: [&str; 5] = ["_total", "_count", "_sum", "_bucket", "_created"];

/// What a page says about the metric of a selector.
#[derive(Debug, Default)]
pub(super) struct CounterSum {
    /// Whether the page has the metric, as a series or in a TYPE comment.
    pub(super) exists: bool,
    /// How many series match.
    pub(super) series: usize,
    /// Their sum; `None` if none matches.
    pub(super) value: Option<f64>,
    /// The newest of their timestamps, in milliseconds since 1970, if each has one. An older series
    /// is one that did not change.
    pub(super) newest_timestamp: Option<f64>,
    /// Why the metric cannot be a counter of requests, and what to write instead.
    pub(super) no_counter: Option<String>,
    /// A metric on the page that may be meant, where it does not have the metric.
    pub(super) similar: Option<String>,
}

/// Reads the whole page, and adds up the series of each selector. A sample that is later than `latest`,
/// in milliseconds since 1970, is left out, as Prometheus does.
///
/// # Errors
/// A line that Prometheus refuses.
pub(super) fn sum_counters<const N: usize>(
    page: &[u8],
    selectors: [&Selector; N],
    format: TextFormat,
    latest: f64,
) -> Result<[CounterSum; N], String> {
    let mut reader = PageReader::new(page, format);
    let mut kinds = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut matched: [Vec<Sample<'_>>; N] = [const { Vec::new() }; N];
    let mut exists = [false; N];
    while let Some(line) = reader.next_line()? {
        match line {
            Line::Type { family, kind } => _ = kinds.insert(legacy_name(&family), kind),
            Line::Sample(sample) => {
                let name = legacy_name(&sample.name);
                for ((selector, matched), exists) in
                    selectors.iter().zip(&mut matched).zip(&mut exists)
                {
                    let is_metric = sample.name == selector.metric() || name == selector.metric();
                    *exists |= is_metric;
                    if is_metric && selects(selector, &sample.labels) {
                        matched.push(sample.clone());
                    }
                }
                if names.len() < NAMES_MAX {
                    names.insert(name);
                }
            }
        }
    }
    let mut sums = [const { None }; N];
    for (((sum, selector), matched), exists) in
        sums.iter_mut().zip(selectors).zip(matched).zip(exists)
    {
        let matched = Matched::new(matched, format, latest);
        *sum = Some(sum_series(selector, matched, exists, &kinds, &names, format)?);
    }
    Ok(sums.map(Option::unwrap_or_default))
}

/// The samples that count.
struct Matched<'p> {
    samples: Vec<Sample<'p>>,
    /// How many were left out because their time is in the future.
    in_future: usize,
}

impl<'p> Matched<'p> {
    /// Of several lines for one series the newest counts, and of those the first: so does Prometheus. A
    /// line without a time is of now.
    fn new(matched: Vec<Sample<'p>>, format: TextFormat, latest: f64) -> Self {
        let time = |sample: &Sample<'_>| {
            let number = parse_number(sample.timestamp?)?;
            Some(format.to_milliseconds(number))
        };
        let mut this = Self { samples: Vec::new(), in_future: 0 };
        let mut known = BTreeMap::new();
        for sample in matched {
            let at = time(&sample);
            if at.is_some_and(|at| latest < at) {
                this.in_future += 1;
                continue;
            }
            match known.entry(identity(&sample)) {
                Entry::Vacant(entry) => {
                    entry.insert((this.samples.len(), at));
                    this.samples.push(sample);
                }
                Entry::Occupied(mut entry) => {
                    let (index, before) = *entry.get();
                    let is_newer = before.is_some_and(|before| at.is_none_or(|at| before < at));
                    if let Some(place) = this.samples.get_mut(index).filter(|_| is_newer) {
                        *place = sample;
                        entry.insert((index, at));
                    }
                }
            }
        }
        this
    }
}

fn sum_series(
    selector: &Selector,
    matched: Matched<'_>,
    exists: bool,
    kinds: &BTreeMap<Cow<'_, str>, &str>,
    names: &BTreeSet<Cow<'_, str>>,
    format: TextFormat,
) -> Result<CounterSum, String> {
    let Matched { samples: matched, in_future } = matched;
    let metric = selector.metric();
    let family = family_of(metric, kinds);
    let typed = family.is_some_and(|(family, suffix, kind)| {
        suffix.is_empty() && !(format == TextFormat::OpenMetrics && kind == "counter")
            || suffix == "_total" && kinds.contains_key(family)
    });
    let no_counter = no_counter(selector, &matched, family, names).or_else(|| {
        let is_future = matched.is_empty() && in_future > 0;
        is_future.then(|| {
            let unit = format.unit_of_time();
            format!(
                "{metric} has a time in the future; correct a clock, or write {unit} since 1970"
            )
        })
    });
    let (exists, mut sum) = (exists || typed, CounterSum { no_counter, ..CounterSum::default() });
    if !exists {
        let all: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        sum.similar = crate::model::closest_match(metric, &all).map(ToOwned::to_owned);
    }
    let numbers = parse_numbers(&matched)?;
    for (index, sample) in matched.iter().enumerate() {
        let lost = || format!("the metrics cannot be read: {} has no number", sample.name);
        let value = numbers.get(&value_name(index)).ok_or_else(lost)?;
        sum.value = Some(sum.value.unwrap_or(0.0) + value);
        if sample.timestamp.is_some() {
            let at = *numbers.get(&timestamp_name(index)).ok_or_else(lost)?;
            let at = format.to_milliseconds(at);
            sum.newest_timestamp =
                Some(sum.newest_timestamp.map_or(at, |newest: f64| newest.max(at)));
        }
    }
    let all_have_times = matched.iter().all(|sample| sample.timestamp.is_some());
    sum.newest_timestamp = sum.newest_timestamp.filter(|_| all_have_times);
    Ok(CounterSum { exists, series: matched.len(), ..sum })
}

/// The family of a metric: its name in the TYPE line, the suffix of the series, and its type.
fn family_of<'a>(
    metric: &'a str,
    kinds: &BTreeMap<Cow<'_, str>, &'a str>,
) -> Option<(&'a str, &'static str, &'a str)> {
    let whole = kinds.get(metric).map(|kind| (metric, "", *kind));
    whole.or_else(|| {
        SUFFIXES.into_iter().find_map(|suffix| {
            let family = metric.strip_suffix(suffix)?;
            kinds.get(family).map(|kind| (family, suffix, *kind))
        })
    })
}

/// Why a metric is no counter of requests.
fn no_counter(
    selector: &Selector,
    matched: &[Sample<'_>],
    family: Option<(&str, &str, &str)>,
    names: &BTreeSet<Cow<'_, str>>,
) -> Option<String> {
    let metric = selector.metric();
    let has_label = |label| {
        let labels = |sample: &Sample<'_>| sample.labels.iter().any(|(name, _)| name == label);
        matched.iter().any(labels)
    };
    let instead = |name: String| format!("; did you mean {name}?");
    let (family, suffix, kind) = family.unwrap_or((metric, "", ""));
    let count = || instead(format!("{family}_count"));
    let one_bucket = selector.has_equal_matcher("le");
    match (kind, suffix) {
        ("histogram" | "summary", "") => Some(format!("{metric} is a {kind}{}", count())),
        ("histogram" | "summary", "_sum") => {
            Some(format!("{metric} adds up what the {kind} measures{}", count()))
        }
        ("histogram" | "gaugehistogram", "_bucket") if one_bucket => None,
        ("histogram", "_bucket") => {
            Some(format!("{metric} counts each request once a bucket{}", count()))
        }
        (_, "_created") => Some(format!("{metric} is a time, no count")),
        ("gauge" | "gaugehistogram" | "info" | "stateset", _) => {
            let total = format!("{metric}_total");
            let hint = if names.contains(&*total) { instead(total) } else { String::new() };
            Some(format!("{metric} is a {kind}, which goes up and down{hint}"))
        }
        ("counter", "") if matched.is_empty() && names.contains(&*format!("{metric}_total")) => {
            Some(format!(
                "{metric} is a family without series{}",
                instead(format!("{metric}_total"))
            ))
        }
        ("", _) if has_label("quantile") => {
            Some(format!("{metric} has quantiles, so it is a summary{}", count()))
        }
        ("", _) if has_label("le") && !one_bucket => {
            let family = metric.strip_suffix("_bucket").unwrap_or(metric);
            let count = instead(format!("{family}_count"));
            Some(format!("{metric} counts each request once a bucket{count}"))
        }
        ("", _) if matched.is_empty() && !names.contains(metric) => {
            let meant = ["_total", "_count"].map(|suffix| format!("{metric}{suffix}"));
            let meant = meant.into_iter().find(|name| names.contains(&**name))?;
            Some(format!("{metric} is not on the page{}", instead(meant)))
        }
        _ => None,
    }
}

/// Whether a selector matches, by the names of labels as they are or as Prometheus escapes them.
fn selects(selector: &Selector, labels: &[Label<'_>]) -> bool {
    let value = |name: &str| {
        let exact = labels.iter().find(|(label, _)| label == name);
        let label = exact.or_else(|| labels.iter().find(|(label, _)| *legacy_name(label) == *name));
        label.map_or("", |(_, value)| value.as_ref())
    };
    selector.matches(value)
}

/// What distinguishes a series from the others of its page: an empty label is like none.
type SeriesId<'p> = (Cow<'p, str>, BTreeSet<Label<'p>>);

fn identity<'p>(sample: &Sample<'p>) -> SeriesId<'p> {
    let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty());
    (sample.name.clone(), labels.cloned().collect())
}

/// A name as Prometheus escapes it for clients that know letters, digits, `_` and `:` alone.
fn legacy_name<'n>(name: &Cow<'n, str>) -> Cow<'n, str> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == ':';
    if name.chars().all(is_plain) {
        return name.clone();
    }
    name.chars().map(|it| if is_plain(it) { it } else { '_' }).collect::<String>().into()
}

fn value_name(number: usize) -> String {
    format!("m_{number}")
}

fn timestamp_name(number: usize) -> String {
    format!("t_{number}")
}

/// The numbers of all series by name. Each must be read exactly once: the crate skips what it cannot
/// read.
fn parse_numbers(samples: &[Sample<'_>]) -> Result<BTreeMap<String, f64>, String> {
    let mut page = String::new();
    for (index, sample) in samples.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{} {}", value_name(index), sample.value);
        if let Some(timestamp) = sample.timestamp {
            let _ = writeln!(page, "{} {timestamp}", timestamp_name(index));
        }
    }
    let scrape = Scrape::parse(page.lines().map(|line| Ok(line.to_owned())))
        .map_err(|error| format!("the metrics cannot be read: {error}"))?;
    let mut numbers = BTreeMap::new();
    for sample in scrape.samples {
        let Value::Untyped(number) = sample.value else {
            return Err(format!("the metrics cannot be read: {} is no number", sample.metric));
        };
        if numbers.insert(sample.metric, number).is_some() {
            return Err("the metrics cannot be read: a number appeared twice".to_owned());
        }
    }
    Ok(numbers)
}

#[cfg(test)]
#[path = "counter_sum_tests.rs"]
mod tests;
