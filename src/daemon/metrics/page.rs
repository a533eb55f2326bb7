//! What is told about each service. Every label has few values at a time: services and slots are
//! configured, a service has at most a handful of releases, the rest are words of ours. Methods and
//! tools, whose names clients choose, stay in `rollbackd status --json`.

use crate::control::{BOUNDS, ReleaseStatus, Spread, Status};
use crate::daemon::gauge::real;

use super::text::{Form, Kind, Text};

/// A family with one value for each service, if the service has it.
type OfService = (&'static str, Kind, &'static str, fn(&Status) -> Option<f64>);
/// A family with one value for each release.
type OfRelease = (&'static str, Kind, &'static str, fn(&ReleaseStatus) -> f64);
/// A family with a value for each word of ours.
type OfWord = (&'static str, Kind, &'static str, &'static str, fn(&Status) -> Words);
type Words = Vec<(String, f64)>;

const SERVICE: &[OfService] = &[
    ("rollbackd_deploy", Kind::Gauge, "Number of the newest deploy.", |it| {
        Some(f64::from(it.deploy.0))
    }),
    ("rollbackd_phase_seconds", Kind::Gauge, "Time in the present phase.", |it| Some(it.since_s)),
    ("rollbackd_held", Kind::Gauge, "Whether the daemon's hands are off.", |it| {
        Some(flag(it.hold.is_some()))
    }),
    (
        "rollbackd_trouble",
        Kind::Gauge,
        "Whether something keeps the daemon from deciding, such as a full disk.",
        |it| Some(flag(it.trouble.is_some())),
    ),
    (
        "rollbackd_quarantined",
        Kind::Gauge,
        "Releases that were rolled back and need --force.",
        |it| u32::try_from(it.quarantine.len()).ok().map(f64::from),
    ),
    ("rollbackd_objective_ratio", Kind::Gauge, "Share of requests that must be good.", |it| {
        Some(it.objective)
    }),
    (
        "rollbackd_budget_left",
        Kind::Gauge,
        "Bad requests that the objective still allows, of those of the last hour.",
        |it| Some(it.budget_left),
    ),
    (
        "rollbackd_evidence",
        Kind::Gauge,
        "E-value against the release on trial, for the objective that speaks loudest.",
        |it| it.evidence.as_ref().map(|evidence| evidence.e),
    ),
    ("rollbackd_evidence_threshold", Kind::Gauge, "E-value that makes a verdict.", |it| {
        it.evidence.as_ref().map(|evidence| evidence.threshold)
    }),
    (
        "rollbackd_evidence_ratio",
        Kind::Gauge,
        "How far the evidence is from nothing (0) to a verdict (1).",
        |it| it.evidence.as_ref().map(crate::model::Evidence::progress),
    ),
    (
        "rollbackd_rollbacks_ordered_total",
        Kind::Counter,
        "Rollbacks that a person ordered.",
        |it| Some(real(it.totals.ordered)),
    ),
    (
        "rollbackd_timeline_write_failures_total",
        Kind::Counter,
        "Lines of the timeline that could not be written.",
        |it| Some(real(it.totals.write_failures)),
    ),
];

const RELEASE: &[OfRelease] = &[
    ("rollbackd_probe_ok", Kind::Gauge, "Whether the last probe was answered well.", |it| {
        flag(it.probe == "ok")
    }),
    ("rollbackd_sessions", Kind::Gauge, "Live sessions.", |it| real(it.sessions)),
    ("rollbackd_open_requests", Kind::Gauge, "Open requests.", |it| real(it.in_flight)),
    ("rollbackd_slow_requests_total", Kind::Counter, "Requests past the latency limit.", |it| {
        real(it.counts.slow)
    }),
    ("rollbackd_streams_total", Kind::Counter, "Streams that only listened, and ended.", |it| {
        real(it.counts.streams)
    }),
    (
        "rollbackd_broken_streams_total",
        Kind::Counter,
        "Of those, the ones that the release broke off.",
        |it| real(it.counts.broken),
    ),
];

const WORDS: &[OfWord] = &[
    (
        "rollbackd_phase",
        Kind::Gauge,
        "What the service is doing: 1 for one phase.",
        "phase",
        |it| vec![(it.phase.clone(), 1.0)],
    ),
    (
        "rollbackd_verdict",
        Kind::Gauge,
        "What the judge finds in the release on trial: 1 for one finding.",
        "finding",
        |it| it.finding.iter().map(|finding| (finding.clone(), 1.0)).collect(),
    ),
    (
        "rollbackd_rollbacks_total",
        Kind::Counter,
        "Rollbacks, by how the traffic began to leave.",
        "strategy",
        |it| {
            let (drains, cuts) = (real(it.totals.drains), real(it.totals.cuts));
            vec![("drain".to_owned(), drains), ("cut".to_owned(), cuts)]
        },
    ),
    (
        "rollbackd_blocked_total",
        Kind::Counter,
        "Verdicts that a guard kept from becoming a rollback.",
        "guard",
        |it| counts(&it.totals.blocked),
    ),
    ("rollbackd_events_total", Kind::Counter, "Lines of the timeline.", "kind", |it| {
        counts(&it.totals.events)
    }),
];

/// The page about these services; of one that did not answer, only that.
pub(super) fn write(services: &[(String, Option<Status>)], form: Form) -> String {
    let mut text = Text::new(form);
    let name = "rollbackd_build_info";
    text.family(name, Kind::Gauge, "The version that runs.");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let name = "rollbackd_service_up";
    text.family(name, Kind::Gauge, "Whether the service's loop answered in time.");
    for (service, status) in services {
        text.sample(name, &[("service", service)], flag(status.is_some()));
    }
    let known: Vec<&Status> = services.iter().filter_map(|(_, status)| status.as_ref()).collect();
    // One number for the whole daemon, whoever tells it.
    if let Some(lost) = known.iter().map(|status| status.journal_lost).max() {
        let name = "rollbackd_journal_lost_total";
        text.family(name, Kind::Counter, "Messages that the system's journal did not take.");
        text.sample(name, &[], real(lost));
    }
    of_services(&mut text, &known);
    of_releases(&mut text, &known);
    durations(&mut text, &known);
    text.end()
}

fn of_services(text: &mut Text, known: &[&Status]) {
    for (name, kind, help, read) in SERVICE {
        text.family(name, *kind, help);
        for status in known {
            if let Some(value) = read(status) {
                text.sample(name, &[("service", &status.service)], value);
            }
        }
    }
    for (name, kind, help, label, read) in WORDS {
        text.family(name, *kind, help);
        for status in known {
            for (word, value) in read(status) {
                text.sample(name, &[("service", &status.service), (label, &word)], value);
            }
        }
    }
}

fn of_releases(text: &mut Text, known: &[&Status]) {
    let name = "rollbackd_release_info";
    text.family(name, Kind::Gauge, "The releases that run, and what they are for.");
    for_each_release(known, |labels, release| {
        let more = [("slot", release.slot.as_str()), ("role", release.role.as_str())];
        text.sample(name, &[labels.as_slice(), &more].concat(), 1.0);
    });
    let name = "rollbackd_requests_total";
    text.family(name, Kind::Counter, "Requests, by what became of them.");
    for_each_release(known, |labels, release| {
        let it = &release.counts;
        let outcomes = [
            ("ok", it.ok),
            ("server_fault", it.server_fault),
            ("tool_fault", it.tool_fault),
            ("client_fault", it.client_fault),
            ("neutral", it.neutral),
        ];
        for (outcome, count) in outcomes {
            let labels = [labels.as_slice(), &[("outcome", outcome)]].concat();
            text.sample(name, &labels, real(count));
        }
    });
    for (name, kind, help, read) in RELEASE {
        text.family(name, *kind, help);
        for_each_release(known, |labels, release| text.sample(name, &labels, read(release)));
    }
}

/// One version can run twice, in two slots; the number of the deploy tells them apart.
fn for_each_release(
    known: &[&Status],
    mut tell: impl FnMut([(&'static str, &str); 3], &ReleaseStatus),
) {
    for status in known {
        for release in &status.releases {
            let number = release.number.to_string();
            let service = ("service", status.service.as_str());
            tell([service, ("version", &release.version), ("deploy", &number)], release);
        }
    }
}

fn durations(text: &mut Text, known: &[&Status]) {
    let name = "rollbackd_rollback_step_seconds";
    let help = "Time from one milestone of a rollback to the next, by the one at its end.";
    text.family(name, Kind::Histogram, help);
    for status in known {
        for (step, spread) in &status.totals.steps {
            histogram(text, name, &[("service", &status.service), ("step", step)], spread);
        }
    }
    let name = "rollbackd_timeline_write_seconds";
    text.family(name, Kind::Histogram, "Time until a line of the timeline was on disk.");
    for status in known {
        histogram(text, name, &[("service", &status.service)], &status.totals.writes);
    }
}

fn histogram(text: &mut Text, name: &str, labels: &[(&str, &str)], spread: &Spread) {
    let bucket = format!("{name}_bucket");
    let mut sum = 0;
    for (bound, within) in BOUNDS.iter().zip(&spread.within) {
        sum += within;
        let bound = format!("{bound:?}");
        text.sample(&bucket, &[labels, &[("le", &bound)]].concat(), real(sum));
    }
    text.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), real(spread.count));
    text.sample(&format!("{name}_sum"), labels, spread.sum_s);
    text.sample(&format!("{name}_count"), labels, real(spread.count));
}

fn counts(by_word: &std::collections::BTreeMap<String, u64>) -> Words {
    by_word.iter().map(|(word, count)| (word.clone(), real(*count))).collect()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Response;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));

    /// A service with everything, one with nothing, and one that does not answer.
    fn services() -> Vec<(String, Option<Status>)> {
        let replies = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/wire/0.1.0/control-replies.txt"
        ));
        let status = |name: &str, service: &str| {
            let line = replies.lines().find_map(|line| line.strip_prefix(&format!("{name}  ")));
            let Response::Status(mut status) = serde_json::from_str(line.unwrap()).unwrap() else {
                panic!("{name} is no status")
            };
            service.clone_into(&mut status.service);
            (service.to_owned(), Some(*status))
        };
        vec![
            ("absent".to_owned(), None),
            status("status least", "empty"),
            status("status", "weather"),
        ]
    }

    #[test]
    fn every_metric_is_as_it_was() {
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        let page = |form| write(&services(), form).replace(&version, "version=\"VERSION\"");
        hold("metrics.txt", &page(Form::Prometheus));
        hold("metrics-openmetrics.txt", &page(Form::OpenMetrics));
        let types = [Form::Prometheus, Form::OpenMetrics].map(Form::content_type);
        hold("metrics-types.txt", &format!("{}\n{}\n", types[0], types[1]));
    }
}
