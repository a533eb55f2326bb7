//! Charts of a post-mortem as inline SVG: error rate of both releases, evidence against its limit.

use std::fmt::Write as _;

use crate::incident::document::ErrorRate;
use crate::incident::evidence::EvidenceTrack;
use crate::incident::text::escape_html as escape;
use crate::incident::traffic::Point;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 24.0;

/// A chart while it is drawn.
struct Chart {
    svg: String,
    ms_max: f64,
}

impl Chart {
    fn new(label: &str, ms_max: u64) -> Self {
        let mut svg = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(label)
        );
        Self { svg, ms_max: (ms_max as f64).max(1_000.0) }
    }

    fn x(&self, ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT - 8.0) * (ms as f64 / self.ms_max).min(1.0)
    }

    /// The height of a share: 0 at the bottom, 1 at the top.
    fn y(share: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share.clamp(0.0, 1.0)
    }

    fn line(&mut self, points: impl Iterator<Item = (u64, f64)>, color: &str) {
        let path: Vec<_> =
            points.map(|(ms, share)| format!("{:.1},{:.1}", self.x(ms), Self::y(share))).collect();
        let _ = write!(
            self.svg,
            "<polyline fill=\"none\" stroke=\"var(--{color})\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
    }

    fn level(&mut self, share: f64, label: &str) {
        let (y, right) = (Self::y(share), WIDTH - 8.0);
        let _ = write!(
            self.svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--line)\"/>\
             <text x=\"2\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            escape(label)
        );
    }

    fn mark(&mut self, ms: u64, label: &str, row: usize) {
        let (x, bottom) = (self.x(ms), HEIGHT - BOTTOM);
        let _ = write!(
            self.svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"var(--mark)\" \
             stroke-dasharray=\"3 3\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            (x - 4.0).clamp(LEFT, WIDTH - 70.0),
            if row.is_multiple_of(2) { 10 } else { 21 },
            escape(label)
        );
    }

    fn finish(mut self, legend: &str) -> String {
        let (end, y) = (format!("{:.0} s", self.ms_max / 1000.0), HEIGHT - 6.0);
        let _ = writeln!(
            self.svg,
            "<text x=\"{LEFT}\" y=\"{y}\">0 s</text><text x=\"{}\" y=\"{y}\">{end}</text>\
             <text x=\"{}\" y=\"{y}\">{}</text></svg>",
            WIDTH - 48.0,
            WIDTH / 3.0,
            escape(legend)
        );
        self.svg
    }
}

/// The share of failed requests of both releases, with the milestones.
pub(super) fn error_rate(rate: &ErrorRate) -> String {
    if rate.trial.is_empty() {
        return "<p class=\"soft\">no traffic was recorded</p>\n".to_owned();
    }
    let last = rate.trial.iter().chain(&rate.control).map(|it| it.ms).max().unwrap_or(0);
    let marks = rate.marks.iter().map(|(_, at)| *at).max().unwrap_or(0);
    let mut chart = Chart::new("error rate over time", last.max(marks));
    chart.level(0.0, "0 %");
    chart.level(0.5, "50 %");
    chart.level(1.0, "100 %");
    let share = |it: &Point| (it.ms, it.bad as f64 / it.judged.max(1) as f64);
    chart.line(rate.control.iter().map(share), "ok");
    chart.line(rate.trial.iter().map(share), "bad");
    for (row, (label, at)) in rate.marks.iter().enumerate() {
        chart.mark(*at, label, row);
    }
    chart.finish("red: the new release; green: the previous one")
}

/// The evidence against the release, on the scale on which evidence adds up.
pub(super) fn evidence(track: &EvidenceTrack) -> String {
    let Some(last) = track.points.last() else { return String::new() };
    let mut chart = Chart::new("evidence against the release over time", last.ms);
    chart.level(0.0, "none");
    chart.level(1.0, "limit");
    chart.line(track.points.iter().map(|it| (it.ms, it.progress)), "bad");
    chart.finish(&format!(
        "{}: e-value {:.1}, limit {:.0}",
        track.objective, track.e_value_max, track.threshold
    ))
}
