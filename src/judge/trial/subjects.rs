//! The subjects, clients and calls of a trial, by number. The tables are bounded: beyond them, subjects
//! share entries by hash, arm by arm, which costs power and no validity.
//!
//! A witness is what no more than a part of the evidence may come from. Where enough clients are active
//! it is the client, however many sessions it has; else the subject. The change depends on who is
//! active, never on an outcome.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::trial::number_map::{ByPair, NumberMap};
use crate::model::{Arm, TrialCell, coin};

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
/// From this many active clients on, clients are witnesses; with fewer, their sessions are.
const CLIENTS_MIN: usize = 6;
/// A client is active for this many seconds after a request.
const ACTIVE_S: u64 = 60;

/// One subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) arm: Arm,
    client: u16,
    /// Its arm before the current step. None: it came after the step began.
    arm_before_step: Option<Arm>,
    failed_in_step: bool,
}

/// How many blocks in a row a witness failed in, and the end of the last one.
#[derive(Debug, Clone, Copy, Default)]
struct FailingBlocks {
    blocks: u32,
    last: u64,
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
    numbers: NumberMap,
    /// By number; None: it has sent nothing yet.
    entries: Vec<Option<Subject>>,
    entered: usize,
    calls: NumberMap,
    /// Subjects that were seen on trial, and those whose last request was there.
    on_trial: usize,
    last_on_trial: usize,
    clients: NumberMap,
    /// The second of the last request of each client, by number.
    client_seen: Vec<u64>,
    by_client: bool,
    failing_blocks: BTreeMap<u16, FailingBlocks>,
    /// Cells and failed cells on the control by subject and call, since a first failure, and the
    /// second of the last one.
    failing: ByPair<(u32, u32, u64)>,
    known_failing: BTreeSet<(u16, u16)>,
}

impl Subjects {
    /// The number of the subject of a cell; it is in this arm now, and its client is active.
    pub(super) fn number(&mut self, cell: &TrialCell) -> u16 {
        let (hash, arm) = (cell.subject, cell.arm);
        let client = self.client(cell);
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
        let index = usize::from(number);
        if self.entries.len() <= index {
            self.entries.resize(index + 1, None);
        }
        let Some(entry) = self.entries.get_mut(index) else { return number };
        let is_new = entry.is_none();
        let new = Subject { arm, client, arm_before_step: None, failed_in_step: false };
        let entry = entry.get_or_insert(new);
        if arm == Arm::Trial && (is_new || entry.arm == Arm::Control) {
            self.on_trial += 1;
        }
        self.entered += usize::from(is_new);
        self.last_on_trial += usize::from(arm == Arm::Trial);
        self.last_on_trial -= usize::from(!is_new && entry.arm == Arm::Trial);
        (entry.arm, entry.client) = (arm, client);
        number
    }

    /// The number of the client of a cell, which is active.
    fn client(&mut self, cell: &TrialCell) -> u16 {
        let next = u16::try_from(self.clients.len()).unwrap_or(u16::MAX);
        let number = match self.clients.get(&cell.client) {
            Some(number) => *number,
            None if next < SUBJECTS_MAX => {
                self.clients.insert(cell.client, next);
                next
            }
            None => SUBJECTS_MAX + remainder(cell.client, SHARED),
        };
        if 0 < cell.started {
            let index = usize::from(number);
            if self.client_seen.len() <= index {
                self.client_seen.resize(index + 1, 0);
            }
            if let Some(seen) = self.client_seen.get_mut(index) {
                *seen = (cell.second + 1).max(*seen);
            }
        }
        number
    }

    fn entry(&self, number: u16) -> Option<&Subject> {
        self.entries.get(usize::from(number))?.as_ref()
    }

    /// The witness that a subject is.
    pub(super) fn witness(&self, number: u16) -> u16 {
        let entry = self.entry(number).filter(|_| self.by_client);
        entry.map_or(number, |entry| entry.client)
    }

    /// A subject and its client, by number.
    pub(super) fn with_client(&self, number: u16) -> (u16, u16) {
        (number, self.entry(number).map_or(number, |entry| entry.client))
    }

    /// Clients that were seen.
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Whether clients are the witnesses, and some have several sessions.
    pub(super) fn have_shared_clients(&self) -> bool {
        self.by_client && self.clients.len() < self.entered
    }

    /// Whether clients are the witnesses, not their sessions.
    pub(super) fn by_client(&self) -> bool {
        self.by_client
    }

    /// Makes clients the witnesses from now on, if enough of them are active and they were not. Returns
    /// the client of each subject then.
    pub(super) fn begin_clients(&mut self, second: u64) -> Option<BTreeMap<u16, u16>> {
        // The second after the last request; 0: none yet.
        let is_active = |at: &&u64| 0 < **at && second.saturating_sub(**at) < ACTIVE_S;
        if self.by_client || self.client_seen.len() < CLIENTS_MIN {
            return None;
        }
        if self.client_seen.iter().filter(is_active).take(CLIENTS_MIN).count() < CLIENTS_MIN {
            return None;
        }
        self.by_client = true;
        let clients: BTreeMap<u16, u16> =
            (0..).zip(&self.entries).filter_map(|(n, it)| Some((n, it.as_ref()?.client))).collect();
        for (subject, failing) in std::mem::take(&mut self.failing_blocks) {
            let client = clients.get(&subject).copied().unwrap_or(subject);
            let sum = self.failing_blocks.entry(client).or_default();
            (sum.blocks, sum.last) = (sum.blocks.max(failing.blocks), sum.last.max(failing.last));
        }
        Some(clients)
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
        (self.entered - self.last_on_trial, self.last_on_trial)
    }

    /// A step begins at this second. Returns the subjects on the control, and those of them whose coin
    /// is below `share`: they move.
    pub(super) fn begin_step(&mut self, second: u64, share: f64) -> (u64, u64) {
        for entry in self.entries.iter_mut().flatten() {
            entry.arm_before_step = Some(entry.arm);
            entry.failed_in_step = false;
        }
        let on_control =
            |number: &u16| self.entry(*number).is_some_and(|it| it.arm == Arm::Control);
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
        if let Some((cells, failures, at)) = self.failing.get_mut(&pair) {
            *cells += 1;
            *failures += u32::from(failed);
            *at = if failed { second } else { *at };
        } else if failed && self.failing.len() < PAIRS_MAX {
            self.failing.insert(pair, (1, 1, second));
        }
    }

    /// This subject is known to fail this call, whatever release answers.
    pub(super) fn mark_known_failing(&mut self, subject: u64, call: u64) {
        if self.known_failing.len() < PAIRS_MAX && self.numbers.len() < usize::from(SUBJECTS_MAX) {
            let next = u16::try_from(self.numbers.len()).unwrap_or(u16::MAX);
            let number = *self.numbers.entry(subject).or_insert(next);
            let pair = (number, self.call(call));
            self.known_failing.insert(pair);
        }
    }

    /// Whether this subject mostly failed this call on the old release before the step.
    pub(super) fn is_known_failing(&self, pair: (u16, u16)) -> bool {
        !self.known_failing.is_empty() && self.known_failing.contains(&pair)
    }

    /// Whether this failure is the subject's first in the step, if it was not on trial before it.
    pub(super) fn first_failure(&mut self, number: u16) -> Option<FirstFailure> {
        let entry = self.entries.get_mut(usize::from(number))?.as_mut()?;
        if number >= SUBJECTS_MAX || std::mem::replace(&mut entry.failed_in_step, true) {
            return None;
        }
        match entry.arm_before_step {
            Some(Arm::Trial) => None,
            Some(Arm::Control) => Some(FirstFailure::FromControl),
            None => Some(FirstFailure::New),
        }
    }

    /// What a failing block of this witness counts for: 3/k for the k-th in a row. Else one client
    /// that fails all the time would speak for its arm, on either side.
    pub(super) fn fade(&mut self, witness: u16, second: u64, on_trial: usize) -> f64 {
        let failing = self.failing_blocks.entry(witness).or_default();
        if FADE_S < second.saturating_sub(failing.last) {
            failing.blocks = 0;
        }
        // A client may fail in several sessions of one block.
        if failing.last < second || failing.blocks == 0 {
            failing.blocks = failing.blocks.saturating_add(1);
        }
        failing.last = second;
        let fades = FADE_SUBJECTS <= on_trial;
        let full = if fades { FULL_BLOCKS } else { failing.blocks };
        f64::from(full.max(1)) / f64::from(failing.blocks.max(full).max(1))
    }
}

fn remainder(hash: u64, by: u16) -> u16 {
    u16::try_from(hash % u64::from(by)).unwrap_or_default()
}
