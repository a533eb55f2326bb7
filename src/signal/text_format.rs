//! The two text formats of a metrics page, and what differs between them.

/// The format of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextFormat {
    /// Timestamps are in milliseconds.
    Prometheus,
    /// Timestamps are in seconds, and the last line is `# EOF`.
    OpenMetrics,
}

/// The type of a page in OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

impl TextFormat {
    /// The format that a `content-type` names, in lower case. Every other type is the text format.
    pub(super) fn of(content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default();
        if media_type.trim() == OPEN_METRICS { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// A timestamp of a page in milliseconds.
    pub(super) fn to_milliseconds(self, timestamp: f64) -> f64 {
        match self {
            Self::Prometheus => timestamp,
            Self::OpenMetrics => timestamp * 1_000.0,
        }
    }

    /// The unit of a timestamp.
    pub(super) fn unit_of_time(self) -> &'static str {
        match self {
            Self::Prometheus => "milliseconds",
            Self::OpenMetrics => "seconds",
        }
    }

    /// The type of a family, if there is such a type.
    pub(super) fn kind(self, text: &[u8]) -> Option<&str> {
        let known = match self {
            Self::Prometheus => "counter gauge histogram summary untyped",
            Self::OpenMetrics => {
                "counter gauge histogram gaugehistogram summary info stateset unknown"
            }
        };
        let is_known = |kind: &&str| known.split(' ').any(|it| it == *kind);
        std::str::from_utf8(text).ok().filter(is_known)
    }

    /// Whether a byte separates words.
    pub(super) fn is_space(self, byte: u8) -> bool {
        byte == b' ' || (byte == b'\t' && self == Self::Prometheus)
    }
}
