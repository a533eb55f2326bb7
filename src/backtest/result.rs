//! What the daemon would have done with one configuration.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::backtest::injection::Injection;
use crate::decide::StrategyChoice;
use crate::model::{Finding, Severity, Strategy, Verdict};

/// What the judge found, and when.
#[derive(Debug)]
pub(crate) struct Detection {
    /// Since the begin of the bake; none if nothing was found.
    pub(crate) after: Option<Duration>,
    pub(crate) verdict: Verdict,
    /// Requests of the new release that failed until then.
    pub(crate) failed_requests: u64,
    /// The evidence at that time; the highest if nothing was found.
    pub(crate) e_slo: f64,
    pub(crate) e_attr: Option<f64>,
}

/// One line of the output.
#[derive(Debug, Serialize)]
pub(crate) struct ReplayResult {
    config: String,
    source: String,
    verdict: &'static str,
    severity: Option<Severity>,
    strategy: Option<Strategy>,
    /// Seconds from the begin of the bake to the first breach or shared outage.
    at_second: Option<f64>,
    /// Requests of the new release that failed until then, or in all.
    failed_requests: u64,
    e_slo: f64,
    e_attr: Option<f64>,
    because: String,
    /// Seconds from the begin of the injected regression.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_after: Option<f64>,
    #[serde(skip)]
    notes: Vec<String>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Decided {
    /// In words.
    pub(super) outcome: String,
    /// Whether it was a breach of the release.
    pub(super) found: bool,
    /// When, in seconds from the begin of the bake.
    pub(super) at_second: Option<f64>,
    /// Requests of the release that failed until then; in the whole recording without a breach.
    pub(super) failed_requests: u64,
}

impl ReplayResult {
    /// The result of a replay, without notes.
    pub(crate) fn new(
        source: String,
        config: String,
        detection: Detection,
        choice: Option<StrategyChoice>,
    ) -> Self {
        let Detection { after, verdict, failed_requests, e_slo, e_attr } = detection;
        let (name, severity) = match verdict.finding {
            Finding::Undecided => ("undecided", None),
            Finding::Measuring => ("measuring", None),
            Finding::Healthy => ("healthy", None),
            Finding::Breach(severity) => ("breach", Some(severity)),
            Finding::SharedOutage => ("shared_outage", None),
            Finding::Unattributed => ("unattributed", None),
            Finding::OneUser => ("one_user", None),
            Finding::Differs => ("differs", None),
            Finding::NoData => ("no_data", None),
        };
        Self {
            config,
            source,
            verdict: name,
            severity,
            strategy: choice.map(|it| it.strategy),
            at_second: after.map(|it| round_to_ms(it.as_secs_f64())),
            failed_requests,
            e_slo,
            e_attr,
            because: verdict.because,
            found_after: None,
            notes: Vec::new(),
        }
    }

    /// Whether the daemon would have rolled back, if nothing held it.
    pub(super) fn is_breach(&self) -> bool {
        self.severity.is_some()
    }

    /// The configuration.
    pub(super) fn config_name(&self) -> &str {
        &self.config
    }

    /// The verdict, in one sentence.
    pub(super) fn because(&self) -> &str {
        &self.because
    }

    /// What is compared with the verdict of that time.
    pub(super) fn into_decided(self) -> Decided {
        let found = self.is_breach();
        let strategy = self.strategy.map(|it| format!(", {it}")).unwrap_or_default();
        let outcome = match self.severity {
            Some(severity) => format!("{severity}{strategy}"),
            None => self.verdict.replace('_', " "),
        };
        let Self { at_second, failed_requests, .. } = self;
        Decided { outcome, found, at_second, failed_requests }
    }

    /// Adds how much data lies after the end of the bake.
    pub(crate) fn note_unjudged_time(mut self, bake: Duration, unjudged: Duration) -> Self {
        if self.at_second.is_none() && unjudged > Duration::ZERO {
            let (bake, unjudged) = (bake.as_secs(), unjudged.as_secs());
            self.notes.push(format!(
                "the bake ends after {bake} s; the last {unjudged} s are not judged"
            ));
        }
        self
    }

    /// Adds when the injected regression was found.
    pub(crate) fn note_injection(mut self, injection: Option<&Injection>) -> Self {
        let Some(injection) = injection else { return self };
        let from = injection.from.as_secs_f64();
        let note = match self.at_second {
            Some(at) if at < from => format!("detected before {injection} began"),
            Some(at) => {
                let after = round_to_ms(at - from);
                self.found_after = Some(after);
                format!("detected {after:.1} s after {injection} began")
            }
            None if injection.injected == 0 => {
                format!("{injection} had no good request to change")
            }
            None => format!("{injection} was not detected"),
        };
        self.notes.push(note);
        self
    }
}

/// Signals have whole milliseconds; a fraction of a second has no exact float.
pub(super) fn round_to_ms(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl fmt::Display for ReplayResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, source, severity, strategy, at_second, because, .. } = self;
        write!(f, "{source}  {config}: ")?;
        match severity {
            Some(severity) => write!(f, "{severity}")?,
            None => f.write_str(&self.verdict.replace('_', " "))?,
        }
        if let Some(at) = at_second {
            write!(f, " after {at} s")?;
            let plural = if self.failed_requests == 1 { "" } else { "s" };
            write!(f, " and {} failed request{plural}", self.failed_requests)?;
        }
        match strategy {
            Some(strategy) => write!(f, ", {strategy}")?,
            None => f.write_str(", no rollback")?,
        }
        write!(f, ": {because}")?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}
