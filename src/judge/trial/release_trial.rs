//! The trial of a release in the daemon: signals of the bake in, a verdict out.
//!
//! While both arms have requests, the trial decides about availability and tools, and the judge of the
//! release about all else: probes, exits, latency, streams, its own counters. While the control is
//! idle, there is nothing to compare with, and the judge of the release decides about everything.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judge::beta;
use crate::judge::objective::allowed_rate;
use crate::judge::release_judge::Judge;
use crate::judge::severity;
use crate::judge::slo::{Indicator, SloSettings};
use crate::judge::trial::number_map::ByHash;
use crate::judge::trial::{StepState, TrialJudge, TrialSettings, to_f64};
use crate::model::{
    Arm, Counts, Finding, History, Moment, Observation, RampStep, ReleaseNumber, Signal, TrialCell,
    Verdict, call_number,
};

/// Subjects and calls without a request for this long are not active.
const ACTIVE_S: u64 = 60;
/// Subjects whose last request is kept.
const SUBJECTS_MAX: usize = 10_000;
/// Calls whose names are kept.
const NAMES_MAX: usize = 1_000;
/// The part of a call's requests that may fail, where its history does not say.
const CALL_BUDGET: f64 = 0.02;
/// Requests from which a history says something.
const HISTORY_MIN: u64 = 200;
const CALL_HISTORY_MIN: u64 = 20;
/// Nearly everything fails for this long on the trial arm only. Longer leads of an outage on one arm
/// are rare; each second costs the requests of the arm.
const TOTAL_FAILURE: Duration = Duration::from_secs(6);
/// The lower bound of a failure rate is exceeded with this probability.
const TAIL: f64 = 0.05;

/// Requests that started in one second, and the failed ones: control, trial.
#[derive(Debug, Clone, Copy, Default)]
struct SecondCounts {
    control: (u64, u64),
    trial: (u64, u64),
}

/// The trial of one release.
#[derive(Debug, Clone)]
pub struct ReleaseTrial {
    pub(super) judge: TrialJudge,
    release: ReleaseNumber,
    step: Option<RampStep>,
    /// The second of the last request of each subject.
    last_seen: ByHash<u64>,
    /// The last minute, by second.
    recent: BTreeMap<u64, SecondCounts>,
    /// Requests that started until this second met a pause of the host.
    paused_until: u64,
    /// The call that opens a session.
    opening_call: u64,
    pub(super) names: BTreeMap<u64, String>,
    /// The outcomes of the requests of each release: the control, the trial.
    pub(super) outcomes: [Counts; 2],
}

impl ReleaseTrial {
    /// Opens the trial of a release; `history` is that of the release before it.
    pub fn new(
        release: ReleaseNumber,
        slo: &SloSettings,
        step_max: Duration,
        history: &History,
        now: Moment,
    ) -> Self {
        let mut judge = TrialJudge::new(TrialSettings::new(slo, step_max, history), now);
        let mut names = BTreeMap::new();
        for ((method, name), counts) in history.calls.iter().take(NAMES_MAX) {
            let call = call_number(method, name);
            names.insert(call, call_name(method, name));
            let (bad, judged) = (failed(counts), counts.judged());
            if CALL_HISTORY_MIN <= judged {
                judge.set_call_budget(call, beta::upper_bound(bad, judged, TAIL).min(0.5));
            }
        }
        Self {
            judge,
            release,
            step: None,
            last_seen: ByHash::default(),
            recent: BTreeMap::new(),
            paused_until: 0,
            opening_call: call_number("initialize", ""),
            names,
            outcomes: [Counts::default(); 2],
        }
    }

    /// Takes one signal of the bake in.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        match &signal.observation {
            Observation::Step(step) => self.begin_step(now, *step),
            Observation::Cells(cells) => cells.iter().for_each(|cell| self.add_cell(cell)),
            Observation::KnownFailing(pairs) => {
                let pairs = pairs.iter();
                pairs.for_each(|(subject, call)| self.judge.mark_known_failing(*subject, *call));
            }
            Observation::Calls(calls) => {
                for ((method, name), _) in calls {
                    if self.names.len() < NAMES_MAX {
                        let name_of = || call_name(method, name);
                        self.names.entry(call_number(method, name)).or_insert_with(name_of);
                    }
                }
            }
            Observation::Block(_, counts) => {
                let [control, trial] = &mut self.outcomes;
                let of = if signal.release == self.release { trial } else { control };
                *of += *counts;
                self.judge.advance(now);
            }
            _ => (),
        }
    }

    /// The daemon did not run: what started before `until` says nothing.
    pub fn skip(&mut self, until: Moment) {
        self.paused_until = until.0 / 1000 + 1;
    }

    fn begin_step(&mut self, now: Moment, step: RampStep) {
        if self.step == Some(step) {
            return;
        }
        self.step = Some(step);
        let on_trial = self.active(now).filter(|subject| step.includes(*subject)).count();
        self.judge.begin_step(now, step.below(), on_trial);
    }

    /// The release on trial.
    pub fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// The step of now, if one has begun.
    pub fn step(&self) -> Option<RampStep> {
        self.step
    }

    /// Since when this step is judged.
    pub fn step_began(&self) -> Moment {
        self.judge.step_began
    }

    /// Whether the share of the trial may grow.
    pub fn step_state(&self, now: Moment) -> StepState {
        self.judge.step_state(now)
    }

    /// The subjects that sent a request in the last minute.
    pub fn active(&self, now: Moment) -> impl Iterator<Item = u64> {
        let since = (now.0 / 1000).saturating_sub(ACTIVE_S);
        self.last_seen.iter().filter(move |it| since <= *it.1).map(|it| *it.0)
    }

    fn add_cell(&mut self, cell: &TrialCell) {
        if cell.second <= self.paused_until {
            return;
        }
        self.judge.observe(cell);
        self.count(cell);
        // A request that opens a session is another subject than the session.
        if cell.call == self.opening_call {
            return;
        }
        if let Some(second) = self.last_seen.get_mut(&cell.subject) {
            *second = cell.second.max(*second);
            return;
        }
        if SUBJECTS_MAX <= self.last_seen.len() {
            let since = cell.second.saturating_sub(ACTIVE_S);
            self.last_seen.retain(|_, second| since <= *second);
        }
        if self.last_seen.len() < SUBJECTS_MAX {
            self.last_seen.insert(cell.subject, cell.second);
        }
    }

    fn count(&mut self, cell: &TrialCell) {
        let newest = self.recent.last_key_value().map_or(cell.second, |it| *it.0);
        while self.recent.first_key_value().is_some_and(|it| it.0 + ACTIVE_S < newest) {
            self.recent.pop_first();
        }
        let counts = self.recent.entry(cell.second).or_default();
        let counts = match cell.arm {
            Arm::Control => &mut counts.control,
            Arm::Trial => &mut counts.trial,
        };
        // What is excused never started, for a rate.
        let judged = u64::from(cell.started.saturating_sub(cell.excused));
        *counts = (counts.0 + judged, counts.1 + u64::from(cell.failed));
    }

    /// Whether there is something to compare with: both arms had requests in the last minute.
    pub fn has_control(&self) -> bool {
        let has = |of: fn(&SecondCounts) -> u64| self.recent.values().any(|it| 0 < of(it));
        has(|it| it.control.0) && has(|it| it.trial.0)
    }

    /// The verdict, with what the judge of the release says about all that the trial does not judge.
    pub fn verdict(&self, now: Moment, judge: &Judge) -> Verdict {
        let whole = judge.verdict(now);
        if !self.has_control() {
            return whole;
        }
        if let Some(test) = self.judge.breach() {
            let onset = self.judge.onset().unwrap_or(now);
            let (judged, failed) = self.since(onset);
            let failure_rate_lower = beta::lower_bound(failed, judged, TAIL);
            let lasted = now.since(onset).as_secs_f64().clamp(1.0, to_f64(ACTIVE_S));
            return Verdict {
                release: self.release,
                finding: Finding::Breach(severity::from_failure_rate(failure_rate_lower)),
                because: self.breach_text(test),
                basis: Some(Box::new(self.basis(test))),
                onset,
                failure_rate_lower,
                request_rate: to_f64(judged) / lasted,
            };
        }
        if whole.finding == Finding::SharedOutage {
            return whole;
        }
        let judged_here = |it| matches!(it, Indicator::Availability | Indicator::Tools);
        let rest = judge.verdict_of(now, |it| !judged_here(it));
        match rest.finding {
            Finding::Healthy | Finding::Undecided => {
                let because = self.progress_text() + &judge.scrape_remarks(now);
                Verdict { because, ..rest }
            }
            _ => rest,
        }
    }

    /// Requests on trial since then that are judged, and the failed ones; at most a minute of them.
    fn since(&self, onset: Moment) -> (u64, u64) {
        let since = self.recent.range(onset.0 / 1000..);
        let (judged, failed) =
            since.fold((0, 0), |sum, it| (sum.0 + it.1.trial.0, sum.1 + it.1.trial.1));
        (judged, failed.min(judged))
    }
}

/// Server faults, and tools that answered `isError`.
fn failed(counts: &Counts) -> u64 {
    counts.server_fault.saturating_add(counts.tool_fault)
}

fn call_name(method: &str, name: &str) -> String {
    if name.is_empty() { method.to_owned() } else { format!("{method} {name}") }
}

/// The part of requests that the objective of this indicator allows to fail.
fn budget_of(slo: &SloSettings, indicator: Indicator) -> Option<f64> {
    let objective = slo.objectives.iter().find(|it| it.indicator == indicator);
    objective.map(|objective| objective.error_budget)
}

impl TrialSettings {
    /// The settings of a trial; `history` is that of the release before it. Where tools are judged, a failed
    /// answer of a tool is a failure, too, and the history says how many of them are usual. Where the release
    /// before failed more than the objectives allow, more is allowed, as without a trial.
    pub fn new(slo: &SloSettings, step_max: Duration, history: &History) -> Self {
        let hour = &history.last_hour;
        let availability = budget_of(slo, Indicator::Availability).unwrap_or(0.005);
        let tools = budget_of(slo, Indicator::Tools);
        let before = match tools {
            Some(_) => (hour.judged(), failed(hour)),
            None => Indicator::Availability.count(hour),
        };
        let most = availability.max(tools.unwrap_or(0.0));
        let allowed = allowed_rate(most, slo.min_effect, before);
        let is_usual_known = tools.is_some() && allowed <= most && HISTORY_MIN <= hour.judged();
        let error_budget = if is_usual_known {
            beta::upper_bound(before.1, before.0, TAIL).clamp(availability, most)
        } else {
            allowed
        };
        let call_budget = CALL_BUDGET.max(if most < allowed { allowed } else { availability });
        Self {
            max_false_rollback: slo.max_false_rollback,
            error_budget,
            call_budget,
            min_effect: slo.min_effect,
            burst: slo.burst,
            bake: slo.bake,
            step_max,
            total_failure: TOTAL_FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::slo::Objective;

    fn budgets(objectives: &[(Indicator, f64)], last_hour: Counts) -> (f64, f64) {
        let objective =
            |&(indicator, error_budget)| Objective { indicator, error_budget, weight: 1.0 };
        let slo = SloSettings {
            objectives: objectives.iter().map(objective).collect(),
            probe_interval: Duration::from_secs(5),
            shadow_calls: false,
            ..SloSettings::default()
        };
        let history = History { last_hour, ..History::default() };
        let settings = TrialSettings::new(&slo, Duration::from_mins(2), &history);
        (settings.error_budget, settings.call_budget)
    }

    #[test]
    fn more_is_allowed_where_the_release_before_failed_more() {
        let hour = |server_fault, tool_fault| Counts {
            ok: 10_000 - server_fault - tool_fault,
            server_fault,
            tool_fault,
            ..Counts::default()
        };
        let availability = [(Indicator::Availability, 0.005)];
        assert_eq!(budgets(&availability, Counts::default()), (0.005, 0.02));
        assert_eq!(budgets(&availability, hour(40, 3_000)), (0.005, 0.02));
        let (error, call) = budgets(&availability, hour(500, 0));
        assert!((0.1..0.12).contains(&error) && error == call, "{error} {call}");
        let both = [(Indicator::Availability, 0.005), (Indicator::Tools, 0.05)];
        // What is usual, within the objectives.
        assert_eq!(budgets(&both, Counts::default()), (0.05, 0.02));
        assert_eq!(budgets(&both, hour(0, 0)), (0.005, 0.02));
        let (usual, _) = budgets(&both, hour(0, 200));
        assert!((0.02..0.025).contains(&usual), "{usual}");
        let (error, _) = budgets(&both, hour(0, 1_000));
        assert!((0.2..0.23).contains(&error), "{error}");
    }
}
