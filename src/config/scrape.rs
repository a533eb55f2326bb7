//! The server's own counters: where they are, which ones, and what they are held to.

use std::time::Duration;

use crate::judge::scraped::Scraping;
use crate::judge::{self, About, Objective, reach};

use super::bounds::{bounded, span, spot};
use super::problem::{Code, Problem, Problems};
use super::selector::Selector;
use super::settings::{Scrape, ScrapePlace};
use super::table::brief;
use super::value::say;
use super::written::{self, Set};
use super::{probe, promise, runtime};

/// Its part of the probability of a false rollback, beside those of the other objectives.
const WEIGHT: f64 = 0.1;
/// A bake that is shorter than so many scrapes learns nothing from them.
const SCRAPES_MIN: u32 = 4;

/// Checks the scrape of a service, if it has one, and adds its objective to the judge's.
pub(super) fn check(
    service: &written::Service,
    limits: &mut judge::Limits,
    problems: &mut Problems,
) -> Option<Scrape> {
    const SECOND: Duration = Duration::from_secs(1);
    let written = service.scrape.as_ref()?;
    let times = SECOND..=Duration::from_mins(5);
    let every = bounded("every", &written.every, 5 * SECOND, times, problems);
    let times = Duration::from_millis(10)..=Duration::from_secs(30);
    let timeout = bounded("timeout", &written.timeout, 2 * SECOND, times, problems);
    in_time(service, written, (every, timeout), limits.bake, problems);
    let place = place(service, written, problems);
    let total = selector("total", &written.total, problems);
    let bad = selector("bad", &written.bad, problems);
    let hold = written.no_data.as_ref().is_none_or(|it| *it.get_ref() == "hold");
    let budget = promise::promised("objective", &written.objective, 0.005, problems);
    let objective = Objective { about: About::Scraped, budget, weight: WEIGHT };
    limits.scrape = Some(Scraping { every, hold });
    limits.objectives.push(objective.clone());
    if reach::soonest(limits, &objective).is_none() {
        let at = spot([span(&written.objective)], written.at.clone());
        let what = "`objective` of the scrape is never proven broken inside the bake, with any \
                    number of requests";
        let help = "write a higher objective, such as \"99.5%\", or a longer bake";
        problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
    }
    Some(Scrape { place, total: total?, bad: bad?, every, timeout })
}

fn in_time(
    service: &written::Service,
    written: &written::Scrape,
    (every, timeout): (Duration, Duration),
    bake: Duration,
    problems: &mut Problems,
) {
    if every < timeout {
        let at = spot([span(&written.timeout), span(&written.every)], written.at.clone());
        let what = format!(
            "a scrape may take {}, longer than the {} to the next",
            say(timeout),
            say(every)
        );
        let help = "write a timeout that is not longer than every";
        problems.push(Problem::error(Code::Contradiction, at, what).help(help));
    }
    if bake < every * SCRAPES_MIN {
        let places = [span(&written.every), span(&service.promise.bake)];
        let at = spot(places, written.at.clone());
        let what = format!(
            "the counters are read {} apart and the bake ends after {}: they tell nothing in time",
            say(every),
            say(bake),
        );
        let help =
            format!("write an every of at most {}, or a longer bake", say(bake / SCRAPES_MIN));
        problems.push(Problem::error(Code::NeverTrips, at, what).help(help));
    }
}

fn place(
    service: &written::Service,
    written: &written::Scrape,
    problems: &mut Problems,
) -> ScrapePlace {
    if let (Some(path), Some(url)) = (&written.path, &written.url) {
        let what = "`path` and `url` both say where the counters are";
        let help = "write path for the release's own address, or url for another one";
        let problem = Problem::error(Code::Contradiction, url.span(), what).help(help);
        problems.push(problem.also(path.span(), "the other place"));
    }
    let Some(url) = &written.url else {
        let path = written.path.as_ref().map_or("/metrics", |path| path.get_ref());
        if let Some(at) = span(&written.path).filter(|_| !probe::usable(path)) {
            let what = format!("`path` is \"{}\", which is not a path", brief(path));
            let help = "write a path that begins with /, such as \"/metrics\"";
            problems.push(Problem::error(Code::BadValue, at, what).help(help));
        }
        return ScrapePlace::Path(path.to_owned());
    };
    let text = url.get_ref();
    runtime::known(text, url.span(), &runtime::PROBE, problems);
    if text.contains("{port}") {
        let slots = service.slots.as_ref().map(|slots| slots.get_ref().values());
        let mut slots = slots.into_iter().flatten().map(toml::Spanned::get_ref);
        if slots.any(|it| matches!(it, super::Address::Unix(_))) {
            let what = "{port} has no value in a slot that is a unix socket";
            let help = "give every slot an IP address and a port, or write path in place of url";
            problems.push(Problem::error(Code::Contradiction, url.span(), what).help(help));
        }
    }
    let filled = runtime::PROBE
        .iter()
        .fold(text.clone(), |text, name| text.replace(&format!("{{{name}}}"), "1"));
    let read = filled.parse::<http::Uri>().ok().filter(|it| it.host().is_some());
    if read.is_none_or(|it| it.scheme_str() != Some("http")) {
        let what = format!("`url` is \"{}\", which is no http address", brief(text));
        let help = "write such as \"http://127.0.0.1:{port}/metrics\"; https is not spoken";
        problems.push(Problem::error(Code::BadValue, url.span(), what).help(help));
    } else if !["{port}", "{slot}", "{version}"].iter().any(|it| text.contains(it)) {
        let what = "`url` is the same for every release: their counters can not be told apart";
        let help = "write {port}, {slot} or {version} where they differ";
        problems.push(Problem::error(Code::Contradiction, url.span(), what).help(help));
    }
    ScrapePlace::Url(text.clone())
}

fn selector(name: &str, set: &Set<String>, problems: &mut Problems) -> Option<Selector> {
    let written = set.as_ref()?;
    match Selector::parse(written.get_ref()) {
        Ok(selector) => Some(selector),
        Err(why) => {
            let what = format!("`{name}` {why}");
            let help = "write a metric and its labels, such as 'http_requests_total{code=~\"5..\"}'; \
                        the series that fit are added up";
            problems.push(Problem::error(Code::BadValue, written.span(), what).help(help));
            None
        }
    }
}
