//! Encodes metrics as OpenMetrics, or in the older Prometheus text format for collectors that do not ask
//! for OpenMetrics. The formats differ in the names of counters and in the end of the page.

use std::fmt::Write as _;

/// The format of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    Prometheus,
}

/// What a family of metrics measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Gauge,
    Counter,
    Histogram,
}

/// A page, family by family.
#[derive(Debug)]
pub(super) struct Encoder {
    out: String,
    format: Format,
}

impl Format {
    /// The format that these `Accept` headers ask for.
    pub(super) fn from_accept<'a>(mut accept: impl Iterator<Item = &'a str>) -> Self {
        let wants_openmetrics = accept.any(|value| value.contains("application/openmetrics-text"));
        if wants_openmetrics { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Encoder {
    pub(super) fn new(format: Format) -> Self {
        Self { out: String::new(), format }
    }

    /// Starts a family; its samples follow. The name of a counter ends in `_total`.
    pub(super) fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let name = match self.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Prometheus => name,
        };
        let kind = match kind {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the family.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.out, "{separator}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = match value {
            f64::INFINITY => writeln!(self.out, " +Inf"),
            f64::NEG_INFINITY => writeln!(self.out, " -Inf"),
            value => writeln!(self.out, " {value}"),
        };
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}
