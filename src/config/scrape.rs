//! The server's own counters: where they are, which ones, and what they are held to.

use std::time::Duration;

use super::problem::{Problem, ProblemCode, Problems};
use super::selector::Selector;
use super::settings::{ScrapeSettings, ScrapeTarget};
use super::value::format_duration;
use super::{probe, runtime};
use crate::config::range::{first_span, in_range, span_of};
use crate::config::raw::Raw;
use crate::config::toml_table::shorten;
use crate::config::{raw, slo};
use crate::judge;
use crate::judge::{Indicator, Objective, ScrapePolicy, detectability};

/// Its part of the probability of a false rollback, beside those of the other objectives.
const OBJECTIVE_WEIGHT: f64 = 0.1;
/// A bake that is shorter than so many scrapes learns nothing from them.
const SCRAPES_PER_BAKE_MIN: u32 = 4;

/// Checks the scrape of a service, if it has one, and adds its objective to the judge's.
pub(super) fn check(
    service: &raw::RawService,
    limits: &mut judge::SloSettings,
    problems: &mut Problems,
) -> Option<ScrapeSettings> {
    const SECOND: Duration = Duration::from_secs(1);
    let raw = service.scrape.as_ref()?;
    let interval_range = SECOND..=Duration::from_mins(5);
    let every = in_range("every", &raw.every, 5 * SECOND, interval_range, problems);
    let timeout_range = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = in_range("timeout", &raw.timeout, 2 * SECOND, timeout_range, problems);
    check_timing(service, raw, (every, timeout), limits.bake, problems);
    let place = scrape_target(service, raw, problems);
    let total = parse_selector("total", &raw.total, problems);
    let bad = parse_selector("bad", &raw.bad, problems);
    let hold = raw.no_data.as_ref().is_none_or(|it| *it.get_ref() == "hold");
    let budget = slo::objective_budget("objective", &raw.objective, 0.005, problems);
    let objective =
        Objective { indicator: Indicator::Scraped, error_budget: budget, weight: OBJECTIVE_WEIGHT };
    limits.scrape = Some(ScrapePolicy { interval: every, extend_bake: hold });
    limits.objectives.push(objective.clone());
    if detectability::soonest_detection(limits, &objective).is_none() {
        let at = first_span([span_of(&raw.objective)], raw.span.clone());
        let what = "`objective` of the scrape is never proven broken inside the bake, with any \
                    number of requests";
        let help = "write a higher objective, such as \"99.5%\", or a longer bake";
        problems.push(Problem::error(ProblemCode::UnreachableThreshold, at, what).help(help));
    }
    Some(ScrapeSettings { target: place, total: total?, bad: bad?, interval: every, timeout })
}

fn check_timing(
    service: &raw::RawService,
    raw: &raw::RawScrape,
    (every, timeout): (Duration, Duration),
    bake: Duration,
    problems: &mut Problems,
) {
    if every < timeout {
        let at = first_span([span_of(&raw.timeout), span_of(&raw.every)], raw.span.clone());
        let what = format!(
            "a scrape may take {}, longer than the {} to the next",
            format_duration(timeout),
            format_duration(every)
        );
        let help = "write a timeout that is not longer than every";
        problems.push(Problem::error(ProblemCode::Contradiction, at, what).help(help));
    }
    if bake < every * SCRAPES_PER_BAKE_MIN {
        let spans = [span_of(&raw.every), span_of(&service.slo.bake)];
        let at = first_span(spans, raw.span.clone());
        let what = format!(
            "the counters are read {} apart and the bake ends after {}: they tell nothing in time",
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
    service: &raw::RawService,
    raw: &raw::RawScrape,
    problems: &mut Problems,
) -> ScrapeTarget {
    if let (Some(path), Some(url)) = (&raw.path, &raw.url) {
        let what = "`path` and `url` both say where the counters are";
        let help = "write path for the release's own address, or url for another one";
        let problem = Problem::error(ProblemCode::Contradiction, url.span(), what).help(help);
        problems.push(problem.related(path.span(), "the other place"));
    }
    let Some(url) = &raw.url else {
        let path = raw.path.as_ref().map_or("/metrics", |path| path.get_ref());
        if let Some(at) = span_of(&raw.path).filter(|_| !probe::is_request_path(path)) {
            let what = format!("`path` is \"{}\", which is not a path", shorten(path));
            let help = "write a path that begins with /, such as \"/metrics\"";
            problems.push(Problem::error(ProblemCode::BadValue, at, what).help(help));
        }
        return ScrapeTarget::Path(path.to_owned());
    };
    let text = url.get_ref();
    runtime::check_placeholders(text, url.span(), &runtime::PROBE_PLACEHOLDERS, problems);
    if text.contains("{port}") {
        let slots = service.slots.as_ref().map(|slots| slots.get_ref().values());
        let mut slots = slots.into_iter().flatten().map(toml::Spanned::get_ref);
        if slots.any(|it| matches!(it, super::Address::Unix(_))) {
            let what = "{port} has no value in a slot that is a unix socket";
            let help = "give every slot an IP address and a port, or write path in place of url";
            problems.push(Problem::error(ProblemCode::Contradiction, url.span(), what).help(help));
        }
    }
    let example = runtime::PROBE_PLACEHOLDERS
        .iter()
        .fold(text.clone(), |text, name| text.replace(&format!("{{{name}}}"), "1"));
    let uri = example.parse::<http::Uri>().ok().filter(|it| it.host().is_some());
    if uri.is_none_or(|it| it.scheme_str() != Some("http")) {
        let what = format!("`url` is \"{}\", which is no http address", shorten(text));
        let help = "write such as \"http://127.0.0.1:{port}/metrics\"; https is not spoken";
        problems.push(Problem::error(ProblemCode::BadValue, url.span(), what).help(help));
    } else if !["{port}", "{slot}", "{version}"].iter().any(|it| text.contains(it)) {
        let what = "`url` is the same for every release: their counters can not be told apart";
        let help = "write {port}, {slot} or {version} where they differ";
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
                        the series that fit are added up";
            problems.push(Problem::error(ProblemCode::BadValue, given.span(), what).help(help));
            None
        }
    }
}
