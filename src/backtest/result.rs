//! What one configuration would have done.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::backtest::injection::Injection;
use crate::decide::StrategyChoice;
use crate::model::{Finding, Severity, Strategy, Verdict};

/// One line of the result.
#[derive(Debug, Serialize)]
pub(crate) struct ReplayResult {
    config: String,
    source: String,
    verdict: &'static str,
    severity: Option<Severity>,
    strategy: Option<Strategy>,
    /// Since the trial opened, in seconds: the first breach, or shared outage.
    at_second: Option<f64>,
    /// Then, or the highest where nothing was found.
    e_slo: f64,
    e_attr: Option<f64>,
    because: String,
    /// Since the injected regression began, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    found_after: Option<f64>,
    #[serde(skip)]
    notes: Vec<String>,
}

impl ReplayResult {
    /// Of a verdict that came `at` so long after the opening, if there was anything to find.
    pub(crate) fn new(
        source: String,
        config: String,
        verdict: Verdict,
        choice: Option<StrategyChoice>,
        at: Option<Duration>,
        e_slo: f64,
        e_attr: Option<f64>,
    ) -> Self {
        let (name, severity) = match verdict.finding {
            Finding::Undecided => ("undecided", None),
            Finding::Measuring => ("measuring", None),
            Finding::Healthy => ("healthy", None),
            Finding::Breach(severity) => ("breach", Some(severity)),
            Finding::SharedOutage => ("shared_outage", None),
            Finding::Unattributed => ("unattributed", None),
            Finding::NoData => ("no_data", None),
        };
        Self {
            config,
            source,
            verdict: name,
            severity,
            strategy: choice.map(|it| it.strategy),
            at_second: at.map(|it| it.as_secs_f64()),
            e_slo,
            e_attr,
            because: verdict.because,
            found_after: None,
            notes: Vec::new(),
        }
    }

    /// Says how much lies behind the end of the bake.
    pub(crate) fn note_unjudged_time(mut self, bake: Duration, unjudged: Duration) -> Self {
        if self.at_second.is_none() && unjudged > Duration::ZERO {
            let (bake, left) = (bake.as_secs(), unjudged.as_secs());
            self.notes.push(format!("the bake ends after {bake} s; {left} s more are not judged"));
        }
        self
    }

    /// Says when an injected regression was found.
    pub(crate) fn note_injection(mut self, injection: Option<&Injection>) -> Self {
        let Some(injection) = injection else { return self };
        let from = injection.from.as_secs_f64();
        let note = match self.at_second {
            Some(at) if at < from => format!("found before {injection} began"),
            Some(at) => {
                let after = round_to_ms(at - from);
                self.found_after = Some(after);
                format!("found {after:.1} s after {injection} began")
            }
            None if injection.injected == 0 => {
                format!("{injection} found no request to make bad")
            }
            None => format!("{injection} was not found"),
        };
        self.notes.push(note);
        self
    }
}

fn round_to_ms(seconds: f64) -> f64 {
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
        }
        match strategy {
            Some(strategy) => write!(f, ", {strategy}")?,
            None => f.write_str(", no rollback")?,
        }
        write!(f, ": {because}")?;
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}
