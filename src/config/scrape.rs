//! The scrape of a service: where the counters of the server are, and their objective.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::config::address::Address;
use crate::config::placeholder::{PROBE_PLACEHOLDERS, check_placeholders};
use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::range::{first_span, in_range, objective_budget, span_of};
use crate::config::selector::Selector;
use crate::config::toml_table::TomlTable;
use crate::config::value::{
    Raw, duration, error_budget, expect_table, format_duration, is_request_path, one_of, string,
};
use crate::judge;
use crate::judge::{Indicator, Objective, ScrapePolicy, detectability};
use crate::model::Slot;

/// The weight of its objective in the probability of a false rollback.
const OBJECTIVE_WEIGHT: f64 = 0.1;

/// A bake needs at least this many scrapes.
const SCRAPES_PER_BAKE_MIN: u32 = 4;

/// How the daemon scrapes the counters of a release.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeSettings {
    /// Where the counters are.
    pub target: ScrapeTarget,
    /// All requests.
    pub total: Selector,
    /// The bad ones among them.
    pub bad: Selector,
    /// The time between two scrapes.
    pub interval: Duration,
    /// Longest time for a response.
    pub timeout: Duration,
}

/// Where the counters are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeTarget {
    /// A path at the address of the release's slot.
    Path(String),
    /// A URL. `{port}`, `{slot}` and `{version}` are replaced.
    Url(String),
}

/// `[service.NAME.scrape]`.
pub(super) struct RawScrape {
    pub(super) span: Range<usize>,
    pub(super) path: Raw<String>,
    pub(super) url: Raw<String>,
    pub(super) total: Raw<String>,
    pub(super) bad: Raw<String>,
    pub(super) every: Raw<Duration>,
    pub(super) timeout: Raw<Duration>,
    pub(super) objective: Raw<f64>,
    pub(super) no_data: Raw<&'static str>,
}

pub(super) fn read(table: &mut TomlTable<'_>, problems: &mut Problems) -> Option<RawScrape> {
    const BAD: &str = "'http_requests_total{code=~\"5..\"}'";
    const FORM: &str = "[service.NAME.scrape], and below it total and bad";
    table.read("scrape", |value| expect_table(value, FORM), problems)?;
    let mut table = table.subtable("scrape", "the scrape", FORM, problems);
    let scrape = RawScrape {
        span: table.span(),
        path: table.read("path", string, problems),
        url: table.read("url", string, problems),
        total: table.required("total", "\"http_requests_total\"", string, problems),
        bad: table.required("bad", BAD, string, problems),
        every: table.read("every", duration, problems),
        timeout: table.read("timeout", duration, problems),
        objective: table.read("objective", error_budget, problems),
        no_data: table.read("no_data", one_of(["hold", "ignore"]), problems),
    };
    table.reject_unknown_keys(problems);
    Some(scrape)
}

/// Checks the scrape of a service, if it has one, and adds its objective to the judge's.
pub(super) fn check(
    raw: Option<&RawScrape>,
    bake_span: Option<Range<usize>>,
    slots: &BTreeMap<Slot, Address>,
    limits: &mut judge::SloSettings,
    problems: &mut Problems,
) -> Option<ScrapeSettings> {
    const SECOND: Duration = Duration::from_secs(1);
    let raw = raw?;
    let interval_range = SECOND..=Duration::from_mins(5);
    let every = in_range("every", &raw.every, 5 * SECOND, interval_range, problems);
    let timeout_range = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = in_range("timeout", &raw.timeout, 2 * SECOND, timeout_range, problems);
    check_timing(raw, every, timeout, problems);
    check_bake(raw, every, limits.bake, bake_span, problems);
    let target = scrape_target(raw, slots, problems);
    let total = parse_selector("total", &raw.total, problems);
    let bad = parse_selector("bad", &raw.bad, problems);
    let hold = raw.no_data.as_ref().is_none_or(|it| *it.get_ref() == "hold");
    let budget = objective_budget("objective", &raw.objective, 0.005, problems);
    let objective =
        Objective { indicator: Indicator::Scraped, error_budget: budget, weight: OBJECTIVE_WEIGHT };
    limits.scrape = Some(ScrapePolicy { interval: every, extend_bake: hold });
    limits.objectives.push(objective.clone());
    if detectability::soonest_detection(limits, &objective).is_none() {
        let at = first_span([span_of(&raw.objective)], raw.span.clone());
        let what = "`objective` of the scrape cannot be shown to be missed within the bake, with any \
                    number of requests";
        let help = "write a higher objective, such as \"99.5%\", or a longer bake";
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    }
    Some(ScrapeSettings { target, total: total?, bad: bad?, interval: every, timeout })
}

fn check_timing(raw: &RawScrape, every: Duration, timeout: Duration, problems: &mut Problems) {
    if every < timeout {
        let at = first_span([span_of(&raw.timeout), span_of(&raw.every)], raw.span.clone());
        let what = format!(
            "a scrape may take {}, longer than the {} until the next",
            format_duration(timeout),
            format_duration(every)
        );
        let help = "write a timeout that is not longer than every";
        problems.push(Problem::error(ProblemCode::Contradiction, at, what).help(help));
    }
}

fn check_bake(
    raw: &RawScrape,
    every: Duration,
    bake: Duration,
    bake_span: Option<Range<usize>>,
    problems: &mut Problems,
) {
    if bake < every * SCRAPES_PER_BAKE_MIN {
        let spans = [span_of(&raw.every), bake_span];
        let at = first_span(spans, raw.span.clone());
        let what = format!(
            "one scrape every {}, and the bake ends after {}: too few for a verdict",
            format_duration(every),
            format_duration(bake),
        );
        let help = format!(
            "write an every of at most {}, or a longer bake",
            format_duration(bake / SCRAPES_PER_BAKE_MIN)
        );
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    }
}

fn scrape_target(
    raw: &RawScrape,
    slots: &BTreeMap<Slot, Address>,
    problems: &mut Problems,
) -> ScrapeTarget {
    if let (Some(path), Some(url)) = (&raw.path, &raw.url) {
        let what = "`path` and `url` both name the counters";
        let help = "write path for the address of the release, or url for another one";
        let problem = Problem::error(ProblemCode::Contradiction, url.span(), what).help(help);
        problems.push(problem.related(path.span(), "the path"));
    }
    let Some(url) = &raw.url else {
        let path = raw.path.as_ref().map_or("/metrics", |path| path.get_ref());
        if let Some(at) = span_of(&raw.path).filter(|_| !is_request_path(path)) {
            let what = format!("`path` is \"{}\", which is not a path", shorten(path));
            let help = "write a path that begins with /, such as \"/metrics\"";
            problems.push(Problem::error(ProblemCode::BadValue, at, what).help(help));
        }
        return ScrapeTarget::Path(path.to_owned());
    };
    let text = url.get_ref();
    check_placeholders(text, url.span(), &PROBE_PLACEHOLDERS, problems);
    if text.contains("{port}") && slots.values().any(|it| matches!(it, Address::Unix(_))) {
        let what = "{port} has no value in a slot that is a unix socket";
        let help = "give every slot an IP address and a port, or write path in place of url";
        problems.push(Problem::error(ProblemCode::Contradiction, url.span(), what).help(help));
    }
    let example = PROBE_PLACEHOLDERS
        .iter()
        .fold(text.clone(), |text, name| text.replace(&format!("{{{name}}}"), "1"));
    let uri = example.parse::<http::Uri>().ok().filter(|it| it.host().is_some());
    if uri.is_none_or(|it| it.scheme_str() != Some("http")) {
        let what = format!("`url` is \"{}\", which is not an http URL", shorten(text));
        let help =
            "write a URL such as \"http://127.0.0.1:{port}/metrics\"; https is not supported";
        problems.push(Problem::error(ProblemCode::BadValue, url.span(), what).help(help));
    } else if !["{port}", "{slot}", "{version}"].iter().any(|it| text.contains(it)) {
        let what = "`url` is the same for every release: their counters cannot be distinguished";
        let help = "write {port}, {slot} or {version} where the URLs differ";
        problems.push(Problem::error(ProblemCode::Contradiction, url.span(), what).help(help));
    }
    ScrapeTarget::Url(text.clone())
}

fn parse_selector(name: &str, raw: &Raw<String>, problems: &mut Problems) -> Option<Selector> {
    let given = raw.as_ref()?;
    match Selector::parse(given.get_ref()) {
        Ok(selector) => Some(selector),
        Err(error) => {
            let what = format!("`{name}` {error}");
            let help = "write a metric and its labels, such as 'http_requests_total{code=~\"5..\"}'; \
                        the matching series are added up";
            problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
            None
        }
    }
}
