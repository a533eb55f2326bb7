//! The judge of one trial: cells in, a breach out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::judge::trial::blocks::Blocks;
use crate::judge::trial::call_table::CallTable;
use crate::judge::trial::call_tests::CallTests;
use crate::judge::trial::cell::{self, Cell, merge};
use crate::judge::trial::clip;
use crate::judge::trial::promise_test::{MASS_AT_START, MASS_AT_STEP, MASS_SPREAD, PromiseTest};
use crate::judge::trial::settings::{STEP_SUBJECTS, TrialSettings, TrialTest};
use crate::judge::trial::share_test::ShareTest;
use crate::judge::trial::subject_test::SubjectTest;
use crate::judge::trial::subjects::{CALLS_MAX, FirstFailure, Subjects};
use crate::judge::trial::total_failure::{Population, SecondSums, TotalFailure};
use crate::model::{Arm, Moment, TrialCell};

/// The three parts of the error probability: the trial, the promise, the calls.
const PARTS: f64 = 3.0;
/// The error probability of the share test within an episode; the promise test convicts with it.
const EPISODE_ALPHA: f64 = 0.02;
/// A call convicts only where the whole episode, and the whole trial, do not speak against it.
const CALL_EPISODE_MIN: f64 = 1.0;
const CALL_TRIAL_MIN: f64 = 0.1;
/// Reports about a second come until this long after it, in milliseconds.
const REPORT_LAG_MS: u64 = 250;
/// Reports of one second that are kept one by one.
const REPORTS_MAX: usize = 10_000;
/// A gap longer than this, say a paused host, is skipped.
const GAP_MAX_S: u64 = 60;
/// The judge of one trial.
#[derive(Debug, Clone)]
pub struct TrialJudge {
    pub(super) settings: TrialSettings,
    pub(super) block_s: u64,
    /// The second in which the trial began.
    pub(super) began: u64,
    /// The remainder of the seconds in which blocks begin.
    pub(super) block_phase: u64,
    pub(super) subjects: Subjects,
    /// Reports of seconds that have not ended.
    pub(super) reports: BTreeMap<u64, Vec<Cell>>,
    /// Cells of seconds that have ended, those on trial.
    pub(super) ended: BTreeMap<u64, Vec<Cell>>,
    /// How many cells those are.
    pub(super) ended_cells: usize,
    /// The first second that has not ended.
    pub(super) next_second: u64,
    pub(super) shares: ShareTest,
    pub(super) episode: ShareTest,
    pub(super) promise: PromiseTest,
    /// Whether it was over its threshold when the present block of time began, and at the end of the
    /// last block that was compared: both tests judge the same requests.
    pub(super) promise_reached: bool,
    pub(super) promise_compared: bool,
    pub(super) blocks: Blocks,
    pub(super) calls: CallTable,
    /// The part of a call's requests that may fail, where its history says more than the default.
    call_budgets: BTreeMap<u64, f64>,
    pub(super) subject_test: SubjectTest,
    pub(super) total_failure: TotalFailure,
    /// The prior mass that the promise test has had.
    pub(super) mass: f64,
    /// The mass that is due at the next second.
    pub(super) mass_due: f64,
    pub(super) assigned: usize,
    pub(super) step_began: Moment,
    pub(super) step_cells: u64,
    pub(super) step_subjects: BTreeSet<u16>,
    pub(super) episode_since: Option<u64>,
    pub(super) last_failure: u64,
    pub(super) counts: [(u64, u64); 2],
}

impl TrialJudge {
    /// Opens a trial. [`Self::begin_step`] sets its first share.
    pub fn new(settings: TrialSettings, now: Moment) -> Self {
        let alpha = settings.max_false_rollback / PARTS;
        let second = now.0 / 1000;
        let total_failure = u32::try_from(settings.total_failure.as_secs()).unwrap_or(u32::MAX);
        Self {
            settings,
            block_s: settings.burst.as_secs().max(1),
            began: second,
            block_phase: 0,
            subjects: Subjects::default(),
            reports: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_cells: 0,
            next_second: second,
            shares: ShareTest::new(alpha, clip::THREE),
            episode: ShareTest::new(EPISODE_ALPHA, clip::TWO),
            promise: PromiseTest::new(settings.error_budget, settings.min_effect, alpha),
            promise_reached: false,
            promise_compared: false,
            blocks: Blocks::new(second),
            calls: CallTable::default(),
            call_budgets: BTreeMap::new(),
            subject_test: SubjectTest::default(),
            total_failure: TotalFailure::new(total_failure.max(1)),
            mass: 0.0,
            mass_due: MASS_AT_START - MASS_AT_STEP,
            assigned: 0,
            step_began: now,
            step_cells: 0,
            step_subjects: BTreeSet::new(),
            episode_since: None,
            last_failure: 0,
            counts: [(0, 0); 2],
        }
    }

    /// A step of the ramp begins: subjects whose coin is below `share` are on trial from now on.
    /// `on_trial` subjects are known to be among them. Give the reports from before it first.
    pub fn begin_step(&mut self, now: Moment, share: f64, on_trial: usize) {
        self.advance(now + Duration::from_millis(REPORT_LAG_MS));
        let second = now.0 / 1000;
        self.assigned = on_trial;
        let (left, movers) = self.subjects.begin_step(second, share);
        self.subject_test.begin_step(left, movers, share);
        self.mass_due += MASS_AT_STEP;
        self.step_began = now;
        self.step_cells = 0;
        self.step_subjects.clear();
        // Blocks count from here: a cold start that is no longer than one lies in one.
        self.block_phase = second % self.block_s;
        // The shares before do not describe a block that goes on.
        self.end_blocks(self.next_second);
        self.blocks.drop_open(self.next_second);
        self.calls.values_mut().for_each(|it| it.blocks.drop_open(self.next_second));
    }

    /// A subject that failed this call on the old release before the trial, most of the time: this
    /// pair is left out.
    pub fn mark_known_failing(&mut self, subject: u64, call: u64) {
        self.subjects.mark_known_failing(subject, call);
    }

    /// This part of a call's requests failed before the trial: its promise.
    pub fn set_call_budget(&mut self, call: u64, budget: f64) {
        if self.call_budgets.len() < usize::from(CALLS_MAX) {
            self.call_budgets.insert(call, budget.max(self.settings.call_budget));
        }
    }

    /// Takes one report.
    pub fn observe(&mut self, report: &TrialCell) {
        let subject = self.subjects.number(report);
        let call = self.subjects.call(report.call);
        let counts = match report.arm {
            Arm::Control => self.counts.first_mut(),
            Arm::Trial => self.counts.last_mut(),
        };
        if let Some(counts) = counts {
            *counts = (counts.0 + u64::from(report.started), counts.1 + u64::from(report.failed));
        }
        let TrialCell { arm, started, excused, failed, .. } = *report;
        let mut cell = Cell { call, subject, arm, started, excused, failed };
        if report.second < self.next_second && report.started == 0 {
            if 0 < report.failed && !self.subjects.is_known_failing((subject, call)) {
                self.fail_late(report.second, &cell);
            }
            return;
        }
        let second = report.second.max(self.next_second);
        let reports = self.reports.entry(second).or_default();
        if REPORTS_MAX <= reports.len() {
            merge(reports);
        }
        if REPORTS_MAX <= reports.len() {
            // Beyond the bound, cells share an earlier one.
            let index = usize::from(subject) % reports.len();
            let Some(other) = reports.get(index).filter(|it| it.arm == cell.arm) else { return };
            (cell.subject, cell.call) = (other.subject, other.call);
        }
        reports.push(cell);
    }

    /// Ends every second that is over.
    pub fn advance(&mut self, now: Moment) {
        let over = now.0.saturating_sub(REPORT_LAG_MS) / 1000;
        self.next_second = self.next_second.max(over.saturating_sub(GAP_MAX_S));
        while self.next_second < over {
            self.end_second();
        }
    }

    fn begins_block(&self, second: u64) -> bool {
        second % self.block_s == self.block_phase
    }

    fn end_second(&mut self) {
        let second = self.next_second;
        self.next_second += 1;
        // A block ends one second after its last start: most of its failures are known then.
        if self.begins_block(second) {
            self.end_blocks(second);
            self.promise.begin_block();
        }
        let mut cells = Vec::new();
        while let Some(reports) = self.reports.first_entry().filter(|it| *it.key() <= second) {
            cells.extend(reports.remove());
        }
        merge(&mut cells);
        let subjects = &self.subjects;
        cells.retain(|it| !subjects.is_known_failing((it.subject, it.call)));
        let mut sums = SecondSums::new(second);
        for cell in &cells {
            self.add_cell(second, cell, &mut sums);
        }
        self.total_failure.end_second(sums);
        self.update_promise(second, &cells);
        cells.retain(|it| it.arm == Arm::Trial);
        self.ended_cells += cells.len();
        self.ended.insert(second, cells);
        if self.begins_block(second + 1) {
            // The arms are compared a second later; until then the promise stands as it is now.
            self.promise_reached = self.promise.is_reached();
            self.calls.values_mut().for_each(CallTests::freeze);
        }
        self.bound_memory(second);
        self.end_episodes();
    }

    fn add_cell(&mut self, second: u64, cell: &Cell, sums: &mut SecondSums) {
        let (is_trial, failed) = (cell.arm == Arm::Trial, 0 < cell.failed);
        if is_trial {
            self.step_cells += 1;
            if self.step_subjects.len() < STEP_SUBJECTS {
                self.step_subjects.insert(cell.subject);
            }
        } else {
            self.subjects.control_cell((cell.subject, cell.call), failed, second);
        }
        if failed {
            self.first_failure(cell);
        }
        sums.add(is_trial, self.subjects.with_client(cell.subject), 1.0, cell.share());
        let judged = cell.started.saturating_sub(cell.excused);
        self.blocks.add(cell.arm, cell.subject, judged, cell.failed);
        let mass = self.mass;
        let (settings, subjects, budgets) = (&self.settings, &self.subjects, &self.call_budgets);
        let alpha = settings.max_false_rollback / PARTS;
        let tests = self.calls.get_or_insert_with(cell.call, || {
            let budget = subjects.call_hash(cell.call).and_then(|hash| budgets.get(&hash));
            let call_budget = budget.copied().unwrap_or(settings.call_budget);
            let settings = TrialSettings { call_budget, ..*settings };
            CallTests::new(&settings, alpha, cell.call, mass, second)
        });
        if let Some(tests) = tests {
            tests.blocks.add(cell.arm, cell.subject, judged, cell.failed);
        }
    }

    /// The cells of a second have started; some have failed already.
    fn update_promise(&mut self, second: u64, cells: &[Cell]) {
        let spread = MASS_SPREAD / self.settings.bake.as_secs_f64().max(1.0);
        let mass = std::mem::take(&mut self.mass_due) + spread;
        self.mass += mass;
        let on_trial = || cells.iter().filter(|it| it.arm == Arm::Trial);
        on_trial().for_each(|it| self.promise.credit(self.subjects.witness(it.subject)));
        self.promise.start(u32::try_from(on_trial().count()).unwrap_or(u32::MAX), mass);
        let witnesses = self.witnesses();
        // Merged cells are in the order of their calls.
        for same_call in cells.chunk_by(|a, b| a.call == b.call) {
            let Some(tests) = same_call.first().and_then(|it| self.calls.get_mut(it.call)) else {
                continue;
            };
            let block = (second + self.block_s - self.block_phase) / self.block_s;
            tests.start(same_call, &self.subjects, self.mass, block);
        }
        for cell in on_trial().filter(|it| 0 < it.failed) {
            let witness = self.subjects.witness(cell.subject);
            self.promise.fail(witness, 0.0, cell.share(), witnesses);
            if let Some(tests) = self.calls.get_mut(cell.call) {
                tests.promise.fail(witness, 0.0, cell.share(), witnesses);
            }
            self.note_failure(second);
        }
    }

    /// Failures of a cell that was counted before.
    fn fail_late(&mut self, second: u64, report: &Cell) {
        let Cell { call, subject, arm, failed, .. } = *report;
        self.first_failure(report);
        self.blocks.add_late(second, arm, subject, failed);
        if let Some(tests) = self.calls.get_mut(call) {
            tests.blocks.add_late(second, arm, subject, failed);
        }
        if arm == Arm::Control {
            self.subjects.control_cell((subject, call), true, second);
        }
        let key = cell::key(call, arm, subject);
        let cells = self.ended.get_mut(&second);
        let cell = cells.and_then(|cells| {
            let index = cells.binary_search_by_key(&key, Cell::key).ok()?;
            cells.get_mut(index)
        });
        let (before, after) = match cell {
            Some(cell) => {
                let before = cell.share();
                cell.failed = cell.failed.saturating_add(failed).min(cell.started);
                (before, cell.share())
            }
            // A cell that is forgotten starts again: its successes were paid twice.
            None => (0.0, 1.0),
        };
        if let Some(sums) = self.total_failure.recent(second) {
            let who = self.subjects.with_client(subject);
            sums.add(arm == Arm::Trial, who, 0.0, after - before);
        }
        if arm == Arm::Control {
            return;
        }
        let (witness, witnesses) = (self.subjects.witness(subject), self.witnesses());
        self.promise.fail(witness, before, after, witnesses);
        if let Some(tests) = self.calls.get_mut(call) {
            tests.promise.fail(witness, before, after, witnesses);
        }
        self.note_failure(second);
    }

    fn first_failure(&mut self, cell: &Cell) {
        let is_trial = cell.arm == Arm::Trial;
        match self.subjects.first_failure(cell.subject) {
            Some(FirstFailure::FromControl) => self.subject_test.first_failure(is_trial),
            Some(FirstFailure::New) => self.subject_test.first_failure_of_new(is_trial),
            None => (),
        }
    }

    fn note_failure(&mut self, second: u64) {
        self.episode_since.get_or_insert(second);
        self.last_failure = self.last_failure.max(second);
    }

    /// Subjects on trial, whether or not they have sent anything. Where clients are the witnesses there
    /// are enough of them for three.
    pub(super) fn witnesses(&self) -> usize {
        let on_trial = self.subjects.on_trial().max(self.assigned);
        if self.subjects.by_client() { on_trial.max(STEP_SUBJECTS) } else { on_trial }
    }

    /// What finds the release in breach now.
    pub fn breach(&self) -> Option<TrialTest> {
        if self.shares.is_reached() {
            return Some(TrialTest::Shares);
        }
        if self.promise_compared && self.promise.is_reached() && self.episode.is_reached() {
            return Some(TrialTest::Promise);
        }
        let population = Population {
            on_trial: self.witnesses(),
            clients: self.subjects.clients(),
            by_client: self.subjects.by_client(),
        };
        if self.total_failure.is_reached(population) {
            return Some(TrialTest::TotalFailure);
        }
        let (call, _) = self.calls.iter().find(|it| it.1.is_broken())?;
        if self.episode.e_value() < CALL_EPISODE_MIN || self.shares.e_value() < CALL_TRIAL_MIN {
            return None;
        }
        Some(TrialTest::Call(self.subjects.call_hash(call)))
    }
}
