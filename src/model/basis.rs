//! Why a verdict was made, as data: the rule that decided, and its numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of objectives and calls are cut to this many characters in a sentence.
const NAME_MAX: usize = 48;

/// Why a verdict was made. It is written beside the text of a verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The rule that decided.
    pub rule: Rule,
    /// The numbers of the objective that was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveNumbers>,
    /// What the comparison with the warm release said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The control and the trial of a ramp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arms: Option<[ArmNumbers; 2]>,
}

/// The rules that find a breach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Probes failed in a row.
    FailedProbes,
    /// The process exited several times in a minute.
    CrashLoop,
    /// Requests are accepted, and none is answered.
    Hang,
    /// The evidence against an objective reached its threshold.
    BrokenObjective,
    /// In a ramp: of the users that saw a failure, too many saw their first one on trial.
    TrialUsers,
    /// In a ramp: more failures than allowed, and more than on the control.
    TrialFailures,
    /// In a ramp: the same for one call.
    TrialCall,
    /// In a ramp: nearly everything fails, on trial only.
    TrialTotalFailure,
}

/// One objective since its trouble began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveNumbers {
    /// Its name, or the call that it is about.
    pub name: String,
    /// Requests since the onset.
    pub requests: u64,
    /// The bad ones among them.
    pub bad: u64,
    /// The share that may be bad, 0 to 1.
    pub allowed: f64,
    /// Whether more is allowed than configured, because the release before failed as much.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allowed_as_before: bool,
    /// The e-value, which is the evidence.
    pub e_value: f64,
    /// The e-value that is enough.
    pub threshold: f64,
}

/// The comparison of the release on trial with the warm one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The rule that decided who is to blame.
    pub rule: ComparisonRule,
    /// The e-value that the deploy is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_value: Option<f64>,
    /// The e-value that is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Requests of clients to the warm release, and the bad ones.
    pub warm: (u64, u64),
    /// Calls repeated on the warm release, and the failed ones.
    pub shadow: (u64, u64),
    /// The most that the warm release fails, 0 to 1, where that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_rate_upper: Option<f64>,
    /// How the last probe of the warm release failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_probe: Option<String>,
}

/// The rules that say whether the deploy is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonRule {
    /// The deploy: the evidence reached its threshold.
    Evidence,
    /// The deploy: the warm release plainly fails less, by the bounds of both rates.
    FailsLess,
    /// The deploy: the warm release has no requests, and passes its probes.
    ProbesPass,
    /// The deploy: there is no warm release.
    NoWarmRelease,
    /// Not the deploy: the warm release breaks the objective too.
    WarmReleaseFails,
    /// Not the deploy: the warm release fails its probes too.
    WarmProbesFail,
    /// Not known yet: the comparison goes on.
    Measuring,
    /// Not known: there is nothing to compare with, and `baseline = "required"`.
    NothingToCompare,
    /// Not known: the comparison says nothing after a minute.
    Undetermined,
}

/// One arm of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmNumbers {
    /// Users (subjects) in it.
    pub users: u64,
    /// Requests that started in it.
    pub requests: u64,
    /// Those that were faults of the release.
    pub failed: u64,
}

impl Basis {
    /// A rule that needs no numbers beside its text.
    pub fn of(rule: Rule) -> Self {
        Self { rule, objective: None, comparison: None, arms: None }
    }
}

impl Comparison {
    /// A rule without measured numbers.
    pub fn of(rule: ComparisonRule) -> Self {
        Self {
            rule,
            e_value: None,
            threshold: None,
            warm: (0, 0),
            shadow: (0, 0),
            warm_rate_upper: None,
            failed_probe: None,
        }
    }
}

/// Which rules decided, and on what evidence: for a reader who asks why.
impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(ObjectiveNumbers { e_value, threshold, .. }) = &self.objective {
            write!(f, ", evidence {} of {threshold:.0}", format_evidence(*e_value))?;
        }
        let Some(comparison) = &self.comparison else { return Ok(()) };
        write!(f, "; {}", comparison.rule)?;
        if let (Some(e_value), Some(threshold)) = (comparison.e_value, comparison.threshold) {
            write!(f, ", evidence {} of {threshold:.0}", format_evidence(e_value))?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailedProbes => "failed probes",
            Self::CrashLoop => "crash loop",
            Self::Hang => "no answers",
            Self::BrokenObjective => "broken objective",
            Self::TrialUsers => "users of the trial fail more",
            Self::TrialFailures => "the trial fails more",
            Self::TrialCall => "a call of the trial fails more",
            Self::TrialTotalFailure => "total failure on trial only",
        })
    }
}

impl fmt::Display for ComparisonRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evidence => "deploy to blame",
            Self::FailsLess => "deploy to blame, the warm release fails less",
            Self::ProbesPass => "deploy to blame, the warm release passes its probes",
            Self::NoWarmRelease => "no warm release to compare with",
            Self::WarmReleaseFails => "not the deploy, the warm release breaks the objective too",
            Self::WarmProbesFail => "not the deploy, the warm release fails its probes too",
            Self::Measuring => "the cause is being measured",
            Self::NothingToCompare => "no requests to compare with",
            Self::Undetermined => "the comparison decides nothing",
        })
    }
}

impl fmt::Display for ObjectiveNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, requests, bad, allowed, .. } = self;
        let name: String = name.chars().take(NAME_MAX).collect();
        let failing = 100.0 * to_f64(*bad) / to_f64((*requests).max(1));
        let allowed = format!("{:.3}", 100.0 * allowed);
        let allowed = allowed.trim_end_matches('0').trim_end_matches('.');
        let before = if self.allowed_as_before { " as before" } else { "" };
        write!(
            f,
            "{name}: {bad} of {requests} requests bad ({failing:.1} %, allowed {allowed} %{before})"
        )
    }
}

/// The numbers of the comparison, and what they mean.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            ComparisonRule::ProbesPass => f.write_str("warm release: probes pass"),
            ComparisonRule::NoWarmRelease => f.write_str("no warm release to compare"),
            ComparisonRule::NothingToCompare => {
                f.write_str("no requests to compare (baseline = \"required\")")
            }
            ComparisonRule::WarmProbesFail => {
                let how = self.failed_probe.as_deref().unwrap_or("probes fail");
                write!(f, "warm release: {how}")
            }
            _ => self.write_numbers(f),
        }
    }
}

impl Comparison {
    fn write_numbers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where clients use the warm release, their requests say more than the repeated calls.
        match (self.warm, self.shadow) {
            ((0, _), (0, _)) => f.write_str("no numbers of the warm release yet")?,
            ((0, _), (calls, failed)) => {
                write!(f, "warm release: {failed} of {calls} repeated calls failed")?;
            }
            ((requests, bad), _) => write!(f, "warm release: {bad} of {requests} bad")?,
        }
        if let Some(rate) = self.warm_rate_upper {
            write!(f, " (at most {:.2} %)", 100.0 * rate)?;
        }
        Ok(())
    }
}

/// An e-value for a sentence. Beyond a million only its size matters.
pub(crate) fn format_evidence(e_value: f64) -> String {
    match e_value {
        e if e < 10.0 => format!("{e:.1}"),
        e if e < 1e6 => format!("{e:.0}"),
        _ => "over 1000000".to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
