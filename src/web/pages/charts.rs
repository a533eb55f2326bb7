//! The charts, as SVG. Each has its content in words, too.

use maud::{Markup, html};

use crate::control::ReleaseStatus;
use crate::model::Evidence;
use crate::web::format::{number, plain, seconds};
use crate::web::samples::Samples;

const WIDTH: f64 = 640.0;
const EVIDENCE_HEIGHT: f64 = 200.0;
const TRAFFIC_HEIGHT: f64 = 56.0;
/// Room for labels at the left.
const LEFT: f64 = 56.0;
/// Below this the evidence is as good as none.
const E_VALUE_MIN: f64 = 0.01;

/// The e-value over time on a log scale, and the threshold.
pub(super) fn evidence_chart(samples: &Samples, evidence: &Evidence) -> Markup {
    let threshold = if evidence.threshold.is_finite() { evidence.threshold } else { 1e30 };
    let threshold = threshold.clamp(10.0, 1e30);
    let top = (threshold * 10.0).log10();
    let bottom = E_VALUE_MIN.log10();
    let y = |e: f64| {
        let log = e.clamp(E_VALUE_MIN, threshold * 10.0).log10();
        EVIDENCE_HEIGHT * (top - log) / (top - bottom)
    };
    let x = x_axis(samples);
    let first = samples.all().first().map(|it| it.at);
    let points = samples.all().iter().filter_map(|sample| {
        let ms = sample.at.since(first?).as_secs_f64() * 1_000.0;
        Some((x(ms), y(sample.e_value?)))
    });
    let line = path(points);
    let words = format!(
        "E-value over the last {}: now {}, threshold {}.",
        seconds(samples.span_ms() / 1_000.0),
        number(evidence.e_value),
        number(evidence.threshold)
    );
    let rows = [(threshold, "threshold", "verdict"), (1.0, "even", "1")];
    html! {
        figure {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (EVIDENCE_HEIGHT) } role="img" aria-label=(words) {
                @for (value, class, label) in rows {
                    line class=(class) x1=(LEFT) x2=(WIDTH) y1=(round(y(value))) y2=(round(y(value))) {}
                    text x="0" y=(round(y(value) + 4.0)) { (label) }
                }
                path.evidence d=(line) {}
                circle.evidence cx=(round(x(samples.span_ms()))) cy=(round(y(evidence.e_value))) r="4" {}
            }
            figcaption { (words) }
        }
    }
}

/// Requests a second of one release, and the failed ones.
pub(super) fn traffic_chart(samples: &Samples, release: &ReleaseStatus) -> Markup {
    let rates = samples.rates(release.number);
    let max = rates.iter().map(|(_, rate, _)| *rate).fold(0.0, f64::max);
    if rates.len() < 2 || max <= 0.0 {
        return html! { p.empty { "No traffic to draw yet." } };
    }
    let x = x_axis(samples);
    let y = |rate: f64| TRAFFIC_HEIGHT - (TRAFFIC_HEIGHT - 2.0) * rate / max;
    let area = |value: &dyn Fn(&(f64, f64, f64)) -> f64| {
        let line = path(rates.iter().map(|it| (x(it.0), y(value(it)))));
        let (start, end) = (rates.first().map(|it| x(it.0)), rates.last().map(|it| x(it.0)));
        let (start, end) = (round(start.unwrap_or(LEFT)), round(end.unwrap_or(WIDTH)));
        format!("{line}L{end} {TRAFFIC_HEIGHT}L{start} {TRAFFIC_HEIGHT}Z")
    };
    let worst = rates.iter().map(|(_, _, failed)| *failed).fold(0.0, f64::max);
    let words = format!(
        "Requests of {} over the last {}: at most {max:.1}/s, failed at most {worst:.1}/s.",
        plain(&release.version),
        seconds(samples.span_ms() / 1_000.0),
    );
    html! {
        figure {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (TRAFFIC_HEIGHT) } role="img" aria-label=(words) {
                text x="0" y="14" { (format!("{max:.0}/s")) }
                path.requests d=(area(&|it| it.1)) {}
                path.failed d=(area(&|it| it.2)) {}
            }
            figcaption { (words) }
        }
    }
}

/// From milliseconds to the place on the axis.
fn x_axis(samples: &Samples) -> impl Fn(f64) -> f64 {
    let span = samples.span_ms().max(1_000.0);
    move |ms| LEFT + (WIDTH - LEFT - 6.0) * (ms / span).clamp(0.0, 1.0)
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (x, y) in points {
        let command = if path.is_empty() { 'M' } else { 'L' };
        path.push_str(&format!("{command}{} {}", round(x), round(y)));
    }
    path
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
