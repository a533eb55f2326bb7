//! How metrics are written: OpenMetrics, or the older text form of Prometheus for those who do
//! not ask for it. They differ in the names of counters and in the end of the page.

use std::fmt::Write as _;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    OpenMetrics,
    Prometheus,
}

/// What a family of metrics measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

/// A page, family by family.
#[derive(Debug)]
pub(super) struct Text {
    out: String,
    form: Form,
}

impl Form {
    /// The form that these `Accept` headers ask for.
    pub(super) fn wanted<'a>(mut accept: impl Iterator<Item = &'a str>) -> Self {
        let open = accept.any(|value| value.contains("application/openmetrics-text"));
        if open { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Text {
    pub(super) fn new(form: Form) -> Self {
        Self { out: String::new(), form }
    }

    /// Begins a family; its samples follow. The name of a counter ends in `_total`.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let name = match self.form {
            Form::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Form::Prometheus => name,
        };
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the family.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.out, "{before}{label}=\"{text}\"");
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
    pub(super) fn end(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}
