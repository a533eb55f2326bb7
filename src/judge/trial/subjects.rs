//! The subjects and calls of a trial, by number. Both tables are bounded: beyond them, subjects
//! share entries by hash, arm by arm, which costs power and no validity.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Arm, coin};

/// Subjects with an entry of their own.
pub(super) const SUBJECTS_MAX: u16 = 10_000;
/// Entries of each arm that the others share.
const SHARED: u16 = 500;
/// Calls with an entry of their own, and entries that the others share.
pub(super) const CALLS_MAX: u16 = 1_000;
const CALLS_SHARED: u16 = 24;
/// A failing block counts toward fading until this many seconds pass without one.
const FADE_S: u64 = 60;
/// Failing blocks of a subject that count in full.
const FULL_BLOCKS: u32 = 3;
/// With fewer subjects on trial there is no other witness, and nothing fades.
const FADE_SUBJECTS: usize = 3;
/// Failures of a subject on the old release are remembered this long, in seconds.
const MEMORY_S: u64 = 600;
/// Pairs of subject and call that failed on the old release and are remembered.
const PAIRS_MAX: usize = 4_000;

/// One subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) arm: Arm,
    /// Its arm before the current step. None: it came after the step began.
    arm_before_step: Option<Arm>,
    failed_in_step: bool,
    failing_blocks: u32,
    last_failing: u64,
}

/// How the first failure of a subject in this step came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstFailure {
    /// It was on the control before the step.
    FromControl,
    /// It came after the step began.
    New,
}

/// All subjects, and what they did on the old release.
#[derive(Debug, Clone, Default)]
pub(super) struct Subjects {
    numbers: BTreeMap<u64, u16>,
    entries: BTreeMap<u16, Subject>,
    calls: BTreeMap<u64, u16>,
    on_trial: usize,
    /// Cells and failed cells on the control by subject and call, since a first failure, and the
    /// second of the last one.
    failing: BTreeMap<(u16, u16), (u32, u32, u64)>,
    known_failing: BTreeSet<(u16, u16)>,
}

impl Subjects {
    /// The number of a subject; it is in this arm now.
    pub(super) fn number(&mut self, hash: u64, arm: Arm) -> u16 {
        let next = u16::try_from(self.numbers.len()).unwrap_or(u16::MAX);
        let number = match self.numbers.get(&hash) {
            Some(number) => *number,
            None if next < SUBJECTS_MAX => {
                self.numbers.insert(hash, next);
                next
            }
            None => {
                let first = SUBJECTS_MAX + if arm == Arm::Trial { SHARED } else { 0 };
                first + remainder(hash, SHARED)
            }
        };
        let mut is_new = false;
        let entry = self.entries.entry(number).or_insert_with(|| {
            is_new = true;
            Subject {
                arm,
                arm_before_step: None,
                failed_in_step: false,
                failing_blocks: 0,
                last_failing: 0,
            }
        });
        if arm == Arm::Trial && (is_new || entry.arm == Arm::Control) {
            self.on_trial += 1;
        }
        entry.arm = arm;
        number
    }

    /// The number of a call.
    pub(super) fn call(&mut self, hash: u64) -> u16 {
        let next = u16::try_from(self.calls.len()).unwrap_or(u16::MAX);
        match self.calls.get(&hash) {
            Some(number) => *number,
            None if next < CALLS_MAX => {
                self.calls.insert(hash, next);
                next
            }
            None => CALLS_MAX + remainder(hash, CALLS_SHARED),
        }
    }

    /// The hash of a call; None where several share the number.
    pub(super) fn call_hash(&self, number: u16) -> Option<u64> {
        self.calls.iter().find(|it| *it.1 == number).map(|it| *it.0)
    }

    /// Subjects that were seen on trial.
    pub(super) fn on_trial(&self) -> usize {
        self.on_trial
    }

    /// Subjects by their last arm: control, trial.
    pub(super) fn by_arm(&self) -> (usize, usize) {
        let on_trial = self.entries.values().filter(|it| it.arm == Arm::Trial).count();
        (self.entries.len() - on_trial, on_trial)
    }

    /// A step begins at this second. Returns the subjects on the control, and those of them whose coin
    /// is below `share`: they move.
    pub(super) fn begin_step(&mut self, second: u64, share: f64) -> (u64, u64) {
        for entry in self.entries.values_mut() {
            entry.arm_before_step = Some(entry.arm);
            entry.failed_in_step = false;
        }
        let on_control =
            |number: &u16| self.entries.get(number).is_some_and(|it| it.arm == Arm::Control);
        let coins: Vec<f64> = self
            .numbers
            .iter()
            .filter(|(_, number)| on_control(number))
            .map(|(hash, _)| coin(*hash))
            .collect();
        let movers = coins.iter().filter(|coin| **coin < share).count();
        let recent = |at: u64| second.saturating_sub(at) < MEMORY_S;
        let mostly_fails = |cells: u32, failed: u32| cells <= failed.saturating_mul(2);
        let known = self
            .failing
            .iter()
            .filter(|(_, (cells, failed, at))| mostly_fails(*cells, *failed) && recent(*at));
        self.known_failing.extend(known.map(|(pair, _)| *pair));
        self.failing.retain(|_, (.., at)| recent(*at));
        (coins.len() as u64, movers as u64)
    }

    /// A cell on the control, and whether it failed: what mostly fails there before a step says
    /// nothing about the new release.
    pub(super) fn control_cell(&mut self, pair: (u16, u16), failed: bool, second: u64) {
        let is_known = self.failing.contains_key(&pair);
        if is_known || (failed && self.failing.len() < PAIRS_MAX) {
            let (cells, failures, at) = self.failing.entry(pair).or_default();
            *cells += 1;
            *failures += u32::from(failed);
            *at = if failed { second } else { *at };
        }
    }

    /// This subject is known to fail this call, whatever release answers.
    pub(super) fn mark_known_failing(&mut self, pair: (u16, u16)) {
        if self.known_failing.len() < PAIRS_MAX {
            self.known_failing.insert(pair);
        }
    }

    /// Whether this subject mostly failed this call on the old release before the step.
    pub(super) fn is_known_failing(&self, pair: (u16, u16)) -> bool {
        self.known_failing.contains(&pair)
    }

    /// Whether this failure is the subject's first in the step, if it was not on trial before it.
    pub(super) fn first_failure(&mut self, number: u16) -> Option<FirstFailure> {
        let entry = self.entries.get_mut(&number)?;
        if number >= SUBJECTS_MAX || std::mem::replace(&mut entry.failed_in_step, true) {
            return None;
        }
        match entry.arm_before_step {
            Some(Arm::Trial) => None,
            Some(Arm::Control) => Some(FirstFailure::FromControl),
            None => Some(FirstFailure::New),
        }
    }

    /// What a failing block of this subject counts for: 3/k for the k-th in a row. Else one client
    /// that fails all the time would speak for its arm, on either side.
    pub(super) fn fade(&mut self, number: u16, second: u64, on_trial: usize) -> f64 {
        let Some(entry) = self.entries.get_mut(&number) else { return 1.0 };
        if FADE_S < second.saturating_sub(entry.last_failing) {
            entry.failing_blocks = 0;
        }
        entry.failing_blocks = entry.failing_blocks.saturating_add(1);
        entry.last_failing = second;
        let fades = FADE_SUBJECTS <= on_trial;
        let full = if fades { FULL_BLOCKS } else { entry.failing_blocks };
        f64::from(full.max(1)) / f64::from(entry.failing_blocks.max(full).max(1))
    }
}

fn remainder(hash: u64, by: u16) -> u16 {
    u16::try_from(hash % u64::from(by)).unwrap_or_default()
}
