//! How incidents are kept and reviewed: `[incidents]`.

use std::time::Duration;

use crate::config::problem::{Problem, ProblemCode, Problems};
use crate::config::toml_table::TomlTable;
use crate::config::value::{Raw, boolean, duration_or_off, unsigned_integer};

/// The default of `remind`.
const REMIND: Duration = Duration::from_hours(24 * 3);

/// How incidents are kept and reviewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentSettings {
    /// How many closed incidents of a service are kept; all by default.
    pub keep: Option<u64>,
    /// When the daemon reminds of an open review first; never with `None`.
    pub remind: Option<Duration>,
    /// Whether an overdue review keeps the next deploy back.
    pub require_review: bool,
}

impl IncidentSettings {
    /// The time after which an open review is overdue.
    pub fn review_within(&self) -> Duration {
        self.remind.unwrap_or(REMIND)
    }
}

/// `[incidents]`.
pub(super) struct RawIncidents {
    keep: Raw<u64>,
    remind: Raw<Option<Duration>>,
    require_review: Raw<bool>,
}

/// Reads the table.
pub(super) fn read(mut table: TomlTable<'_>, problems: &mut Problems) -> RawIncidents {
    let incidents = RawIncidents {
        keep: table.read("keep", unsigned_integer, problems),
        remind: table.read("remind", duration_or_off, problems),
        require_review: table.read("require_review", boolean, problems),
    };
    table.reject_unknown_keys(problems);
    incidents
}

/// Checks the values.
pub(super) fn check(raw: &RawIncidents, problems: &mut Problems) -> IncidentSettings {
    if let Some(given) = &raw.keep
        && *given.get_ref() == 0
    {
        let what = "`keep` is 0: an incident would be removed with its review";
        let help = "write the number of closed incidents to keep, or leave it out to keep all";
        problems.push(Problem::error(ProblemCode::OutOfRange, given.span(), what).help(help));
    }
    let keep = raw.keep.as_ref().map(|it| *it.get_ref());
    let remind = match raw.remind.as_ref().map(|it| *it.get_ref()) {
        Some(given) => given,
        None => Some(REMIND),
    };
    let require_review = raw.require_review.as_ref().is_some_and(|it| *it.get_ref());
    IncidentSettings { keep, remind, require_review }
}
