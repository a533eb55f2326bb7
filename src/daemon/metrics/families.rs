//! The metric families. Every label has few values at a time: services and slots are configured, a service
//! has at most a handful of releases, and the other values are fixed. Methods and tools, whose names
//! clients choose, are only in `rollbackd status --json`.

use crate::control::{HISTOGRAM_BOUNDS, Histogram, ReleaseStatus, Status};
use crate::daemon::metrics::channels;
use crate::daemon::metrics::encoder::{Encoder, Format, MetricKind};
use crate::service::traffic_window::to_f64;

/// A family with one value for each service, if the service has it.
type ServiceMetric = (&'static str, MetricKind, &'static str, fn(&Status) -> Option<f64>);
/// A family with one value for each release.
type ReleaseMetric = (&'static str, MetricKind, &'static str, fn(&ReleaseStatus) -> f64);
/// A family with one value for each value of a label.
type LabelledMetric =
    (&'static str, MetricKind, &'static str, &'static str, fn(&Status) -> LabelledValues);
type LabelledValues = Vec<(String, f64)>;

const SERVICE_METRICS: &[ServiceMetric] = &[
    ("rollbackd_deploy", MetricKind::Gauge, "Number of the newest deploy.", |it| {
        Some(f64::from(it.deploy.0))
    }),
    ("rollbackd_phase_seconds", MetricKind::Gauge, "Time in the present phase.", |it| {
        Some(it.since_s)
    }),
    (
        "rollbackd_held",
        MetricKind::Gauge,
        "Whether an operator hold stops automatic action.",
        |it| Some(flag(it.hold.is_some())),
    ),
    (
        "rollbackd_trouble",
        MetricKind::Gauge,
        "Whether the daemon cannot decide, for example because the disk is full.",
        |it| Some(flag(it.error.is_some())),
    ),
    (
        "rollbackd_quarantined",
        MetricKind::Gauge,
        "Releases that were rolled back and need --allow-quarantined.",
        |it| u32::try_from(it.quarantine.len()).ok().map(f64::from),
    ),
    (
        "rollbackd_objective_ratio",
        MetricKind::Gauge,
        "Share of requests that must succeed.",
        |it| Some(it.objective),
    ),
    (
        "rollbackd_budget_left",
        MetricKind::Gauge,
        "Failed requests that the objective still permits in the last hour.",
        |it| Some(it.budget_remaining),
    ),
    (
        "rollbackd_evidence",
        MetricKind::Gauge,
        "E-value against the release on trial, the highest of all objectives.",
        |it| it.evidence.as_ref().map(|evidence| evidence.e_value),
    ),
    (
        "rollbackd_evidence_threshold",
        MetricKind::Gauge,
        "E-value at which the judge reaches a verdict.",
        |it| it.evidence.as_ref().map(|evidence| evidence.threshold),
    ),
    (
        "rollbackd_evidence_ratio",
        MetricKind::Gauge,
        "Progress of the evidence from none (0) to a verdict (1).",
        |it| it.evidence.as_ref().map(crate::model::Evidence::progress),
    ),
    ("rollbackd_open_reviews", MetricKind::Gauge, "Incidents that need a review.", |it| {
        Some(it.incidents.as_ref().map_or(0.0, |incidents| to_f64(incidents.open)))
    }),
    (
        "rollbackd_oldest_review_seconds",
        MetricKind::Gauge,
        "Age of the oldest incident that needs a review.",
        |it| it.incidents.as_ref().map(|incidents| to_f64(incidents.oldest.1)),
    ),
    (
        "rollbackd_rollbacks_ordered_total",
        MetricKind::Counter,
        "Rollbacks that an operator requested.",
        |it| Some(to_f64(it.counters.operator_ordered)),
    ),
    (
        "rollbackd_timeline_write_failures_total",
        MetricKind::Counter,
        "Timeline entries that could not be written.",
        |it| Some(to_f64(it.counters.timeline_write_failures)),
    ),
];

const RELEASE_METRICS: &[ReleaseMetric] = &[
    ("rollbackd_probe_ok", MetricKind::Gauge, "Whether the last probe succeeded.", |it| {
        flag(it.probe == "ok")
    }),
    ("rollbackd_sessions", MetricKind::Gauge, "Live sessions.", |it| to_f64(it.sessions)),
    ("rollbackd_open_requests", MetricKind::Gauge, "Open requests.", |it| to_f64(it.in_flight)),
    (
        "rollbackd_slow_requests_total",
        MetricKind::Counter,
        "Requests over the latency limit.",
        |it| to_f64(it.counts.slow),
    ),
    ("rollbackd_streams_total", MetricKind::Counter, "Listening streams that ended.", |it| {
        to_f64(it.counts.streams_ended)
    }),
    (
        "rollbackd_broken_streams_total",
        MetricKind::Counter,
        "Listening streams that the release broke.",
        |it| to_f64(it.counts.streams_broken),
    ),
    (
        "rollbackd_rate_limited_total",
        MetricKind::Counter,
        "Requests that the release refused with status 429.",
        |it| to_f64(it.unjudged.rate_limited),
    ),
    (
        "rollbackd_unread_responses_total",
        MetricKind::Counter,
        "Responses in a coding that rollbackd cannot read.",
        |it| to_f64(it.unjudged.unread),
    ),
    (
        "rollbackd_own_shortage_total",
        MetricKind::Counter,
        "Requests that failed because this host lacked files, ports or memory.",
        |it| to_f64(it.unjudged.own_shortage),
    ),
];

const LABELLED_METRICS: &[LabelledMetric] = &[
    (
        "rollbackd_phase",
        MetricKind::Gauge,
        "The phase of the service: 1 for the present one.",
        "phase",
        |it| vec![(it.phase.clone(), 1.0)],
    ),
    (
        "rollbackd_verdict",
        MetricKind::Gauge,
        "The finding of the judge on the release on trial: 1 for the present one.",
        "finding",
        |it| it.finding.iter().map(|finding| (finding.clone(), 1.0)).collect(),
    ),
    (
        "rollbackd_rollbacks_total",
        MetricKind::Counter,
        "Rollbacks, by the strategy at their start.",
        "strategy",
        |it| {
            let (drains, cuts) = (to_f64(it.counters.drains), to_f64(it.counters.cuts));
            vec![("drain".to_owned(), drains), ("cut".to_owned(), cuts)]
        },
    ),
    (
        "rollbackd_blocked_total",
        MetricKind::Counter,
        "Verdicts that did not lead to a rollback, by the guard that stopped them.",
        "guard",
        |it| labelled_counts(&it.counters.blocked),
    ),
    ("rollbackd_events_total", MetricKind::Counter, "Timeline entries, by kind.", "kind", |it| {
        labelled_counts(&it.counters.events)
    }),
];

/// The page of these services. Of a service that did not answer it holds only that.
pub(super) fn render(services: &[(String, Option<Status>)], format: Format) -> String {
    let mut encoder = Encoder::new(format);
    let name = "rollbackd_build_info";
    encoder.family(name, MetricKind::Gauge, "The version of the daemon.");
    encoder.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let name = "rollbackd_service_up";
    encoder.family(name, MetricKind::Gauge, "Whether the service's loop answered in time.");
    for (service, status) in services {
        encoder.sample(name, &[("service", service)], flag(status.is_some()));
    }
    let statuses: Vec<&Status> =
        services.iter().filter_map(|(_, status)| status.as_ref()).collect();
    // One number for the whole daemon: every service reports it.
    if let Some(lost) = statuses.iter().map(|status| status.journal_lost).max() {
        let name = "rollbackd_journal_lost_total";
        encoder.family(
            name,
            MetricKind::Counter,
            "Messages that did not reach the system journal.",
        );
        encoder.sample(name, &[], to_f64(lost));
    }
    channels::write(&mut encoder, &statuses);
    write_service_metrics(&mut encoder, &statuses);
    write_release_metrics(&mut encoder, &statuses);
    write_histograms(&mut encoder, &statuses);
    encoder.finish()
}

fn write_service_metrics(encoder: &mut Encoder, statuses: &[&Status]) {
    for (name, kind, help, read) in SERVICE_METRICS {
        encoder.family(name, *kind, help);
        for status in statuses {
            if let Some(value) = read(status) {
                encoder.sample(name, &[("service", &status.service)], value);
            }
        }
    }
    for (name, kind, help, label, read) in LABELLED_METRICS {
        encoder.family(name, *kind, help);
        for status in statuses {
            for (label_value, value) in read(status) {
                encoder.sample(name, &[("service", &status.service), (label, &label_value)], value);
            }
        }
    }
}

fn write_release_metrics(encoder: &mut Encoder, statuses: &[&Status]) {
    let name = "rollbackd_release_info";
    encoder.family(name, MetricKind::Gauge, "The releases that run, and their roles.");
    for_each_release(statuses, |labels, release| {
        let more = [("slot", release.slot.as_str()), ("role", release.role.as_str())];
        encoder.sample(name, &[labels.as_slice(), &more].concat(), 1.0);
    });
    let name = "rollbackd_requests_total";
    encoder.family(name, MetricKind::Counter, "Requests, by outcome.");
    for_each_release(statuses, |labels, release| {
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
            encoder.sample(name, &labels, to_f64(count));
        }
    });
    for (name, kind, help, read) in RELEASE_METRICS {
        encoder.family(name, *kind, help);
        for_each_release(statuses, |labels, release| encoder.sample(name, &labels, read(release)));
    }
}

/// One version can run twice, in two slots: the number of the deploy distinguishes them.
fn for_each_release(
    statuses: &[&Status],
    mut write: impl FnMut([(&'static str, &str); 3], &ReleaseStatus),
) {
    for status in statuses {
        for release in &status.releases {
            let number = release.number.to_string();
            let service = ("service", status.service.as_str());
            write([service, ("version", &release.version), ("deploy", &number)], release);
        }
    }
}

fn write_histograms(encoder: &mut Encoder, statuses: &[&Status]) {
    let name = "rollbackd_rollback_step_seconds";
    let help = "Time from one milestone of a rollback to the next, by the later one.";
    encoder.family(name, MetricKind::Histogram, help);
    for status in statuses {
        for (step, histogram) in &status.counters.rollback_steps {
            write_histogram(
                encoder,
                name,
                &[("service", &status.service), ("step", step)],
                histogram,
            );
        }
    }
    let name = "rollbackd_timeline_write_seconds";
    encoder.family(name, MetricKind::Histogram, "Time to write a timeline entry to disk.");
    for status in statuses {
        write_histogram(
            encoder,
            name,
            &[("service", &status.service)],
            &status.counters.timeline_writes,
        );
    }
}

fn write_histogram(
    encoder: &mut Encoder,
    name: &str,
    labels: &[(&str, &str)],
    histogram: &Histogram,
) {
    let bucket = format!("{name}_bucket");
    let mut sum = 0;
    for (bound, bucket_count) in HISTOGRAM_BOUNDS.iter().zip(&histogram.buckets) {
        sum += bucket_count;
        let bound = format!("{bound:?}");
        encoder.sample(&bucket, &[labels, &[("le", &bound)]].concat(), to_f64(sum));
    }
    encoder.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), to_f64(histogram.count));
    encoder.sample(&format!("{name}_sum"), labels, histogram.sum_s);
    encoder.sample(&format!("{name}_count"), labels, to_f64(histogram.count));
}

fn labelled_counts(by_value: &std::collections::BTreeMap<String, u64>) -> LabelledValues {
    by_value.iter().map(|(value, count)| (value.clone(), to_f64(*count))).collect()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Response;

    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/golden.rs"));

    /// A service with every value, one with none, and one that does not answer.
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
        let page = |format| render(&services(), format).replace(&version, "version=\"VERSION\"");
        hold("metrics.txt", &page(Format::Prometheus));
        hold("metrics-openmetrics.txt", &page(Format::OpenMetrics));
        let types = [Format::Prometheus, Format::OpenMetrics].map(Format::content_type);
        hold("metrics-types.txt", &format!("{}\n{}\n", types[0], types[1]));
    }
}
