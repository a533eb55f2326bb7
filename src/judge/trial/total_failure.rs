//! Total failure: nearly everything on trial fails for some seconds, while the control is fine.
//!
//! A rule, not a test. It is wrong where an outage reaches the trial arm that many seconds before
//! the control; the share test, which it shortcuts, holds there.

use std::collections::{BTreeSet, VecDeque};

/// At least this part of the cells on trial fails.
const FAILING_MIN: f64 = 0.9;
/// At most this part of the cells of a control that is fine.
const QUIET_MAX: f64 = 0.1;
/// Failed cells, cells of the control, and subjects that the run needs.
const FAILED_MIN: f64 = 8.0;
const CONTROL_MIN: f64 = 5.0;
const SUBJECTS_MIN: usize = 3;
/// The control was fine for this long.
const QUIET_S: u64 = 60;
/// Where one subject or one of several clients carries all of it, there is no other witness: the run is longer
/// by this factor.
const ALONE: u32 = 3;
/// A subject fails a cell if more than this part of it fails.
const SUBJECT_FAILS: f64 = 0.5;

/// What the cells of one second came to.
#[derive(Debug, Clone, Default)]
pub(super) struct SecondSums {
    second: u64,
    /// Cells on trial, and the sum of their failed parts.
    trial: (f64, f64),
    /// The same of the control.
    control: (f64, f64),
    /// Who failed on trial.
    failing: Witnesses,
}

/// Subjects on trial that failed mostly, and their clients, each up to [`SUBJECTS_MIN`].
#[derive(Debug, Clone, Default)]
struct Witnesses {
    subjects: BTreeSet<u16>,
    clients: BTreeSet<u16>,
}

/// Who there is, when it is asked for the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Population {
    /// Witnesses on trial.
    pub(super) on_trial: usize,
    /// Clients that were seen in either arm.
    pub(super) clients: usize,
    /// Whether clients are the witnesses, not their sessions.
    pub(super) by_client: bool,
}

/// The rule over the seconds of a trial.
#[derive(Debug, Clone)]
pub(super) struct TotalFailure {
    /// Seconds that are not judged for good yet: what fails in them may not be known.
    recent: VecDeque<SecondSums>,
    seconds_min: u32,
    run: Run,
}

/// The run of seconds in which nearly everything fails.
#[derive(Debug, Clone, Default)]
struct Run {
    seconds: u32,
    failed: f64,
    control_cells: f64,
    failing: Witnesses,
    control_failed_at: Option<u64>,
    last_second: u64,
}

impl SecondSums {
    pub(super) fn new(second: u64) -> Self {
        Self { second, ..Self::default() }
    }

    /// Adds a cell of this subject and client, or a change of its failed part by `share` (then `cells` is 0).
    pub(super) fn add(&mut self, on_trial: bool, who: (u16, u16), cells: f64, share: f64) {
        let sums = if on_trial { &mut self.trial } else { &mut self.control };
        sums.0 += cells;
        sums.1 += share;
        if on_trial && SUBJECT_FAILS < share {
            self.failing.add(who);
        }
    }
}

impl Witnesses {
    fn add(&mut self, (subject, client): (u16, u16)) {
        for (set, number) in [(&mut self.subjects, subject), (&mut self.clients, client)] {
            if set.len() < SUBJECTS_MIN {
                set.insert(number);
            }
        }
    }

    fn extend(&mut self, others: &Self) {
        self.subjects.extend(&others.subjects);
        self.clients.extend(&others.clients);
    }

    /// Whether the others of this population do not bear it out.
    fn is_alone(&self, population: Population) -> bool {
        self.subjects.len() < 2 || 1 < population.clients && self.clients.len() < 2
    }

    fn are_enough(&self, population: Population) -> bool {
        let witnesses = if population.by_client { &self.clients } else { &self.subjects };
        population.on_trial.clamp(1, SUBJECTS_MIN) <= witnesses.len()
    }
}

impl TotalFailure {
    /// The rule for a run of at least this many seconds.
    pub(super) fn new(seconds_min: u32) -> Self {
        Self { recent: VecDeque::new(), seconds_min, run: Run::default() }
    }

    /// Takes a second that has ended, and judges the one before for good.
    pub(super) fn end_second(&mut self, sums: SecondSums) {
        self.recent.push_back(sums);
        while 1 < self.recent.len() {
            self.recent.pop_front().iter().for_each(|sums| self.run.add(sums));
        }
    }

    /// A second that is not judged for good yet.
    pub(super) fn recent(&mut self, second: u64) -> Option<&mut SecondSums> {
        self.recent.iter_mut().find(|it| it.second == second)
    }

    /// Whether the run is long enough, and borne out. The newest second counts as it
    /// stands: what is not known of it can only end a run that the seconds before have nearly made.
    pub(super) fn is_reached(&self, population: Population) -> bool {
        if self.run.seconds + 1 < self.seconds_min {
            return false;
        }
        let mut run = self.run.clone();
        self.recent.iter().for_each(|sums| run.add(sums));
        run.is_reached(self.seconds_min, population)
    }
}

impl Run {
    fn add(&mut self, sums: &SecondSums) {
        self.last_second = sums.second;
        let (cells, failed) = sums.trial;
        let (control_cells, control_failed) = sums.control;
        let control_fails = QUIET_MAX * control_cells < control_failed;
        if control_fails && 1.0 <= control_failed {
            self.control_failed_at = Some(sums.second);
        }
        if 0.0 < cells && FAILING_MIN * cells <= failed && !control_fails {
            self.seconds += 1;
            self.failed += failed;
            self.control_cells += control_cells;
            self.failing.extend(&sums.failing);
        } else if 0.0 < cells || control_fails {
            (self.seconds, self.failed, self.control_cells) = (0, 0.0, 0.0);
            self.failing = Witnesses::default();
        }
    }

    fn is_reached(&self, seconds_min: u32, population: Population) -> bool {
        let quiet = |at: u64| QUIET_S < self.last_second.saturating_sub(at);
        let times = if self.failing.is_alone(population) { ALONE } else { 1 };
        seconds_min.saturating_mul(times) <= self.seconds
            && FAILED_MIN <= self.failed
            && CONTROL_MIN <= self.control_cells
            && self.failing.are_enough(population)
            && self.control_failed_at.is_none_or(quiet)
    }
}
