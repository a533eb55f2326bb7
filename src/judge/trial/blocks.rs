//! Blocks of start times: which subjects were active in each arm, and which of them failed.
//!
//! A block ends at a multiple of its length at which both arms have an active subject, a rule that
//! looks at no outcome. Failures that are known later are marks of the block of their start, heard
//! when they are known: given the past and the common state of that time, they have one mean in both
//! arms, too.
//!
//! The active sessions of one witness weigh as much as one subject, together: a client that fails in
//! twenty sessions speaks for no arm twenty times. Weights look at no outcome; the share of the trial is
//! that of the weights, so the proof of the share test holds as it is.

use std::collections::{BTreeMap, VecDeque};

use crate::judge::trial::subjects::Subjects;
use crate::model::Arm;

/// A block without both arms is dropped after this many seconds.
const SPAN_MAX_S: u64 = 120;
/// Closed blocks are kept this long, for failures that are known late.
const KEEP_S: u64 = 90;

/// A subject that failed in a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mark {
    pub(super) subject: u16,
    pub(super) arm: Arm,
    /// The failed part of its requests, times its weight.
    pub(super) share: f64,
    /// The part of the active subjects that is on trial, by weight.
    pub(super) pi: f64,
}

/// What one subject did in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Activity {
    arm: Arm,
    subject: u16,
    judged: u32,
    failed: u32,
}

impl Activity {
    /// Its place in the order: by arm, then by subject.
    fn key(&self) -> u32 {
        u32::from(self.arm == Arm::Trial) << 16 | u32::from(self.subject)
    }
}

#[derive(Debug, Clone)]
struct ClosedBlock {
    until: u64,
    from: u64,
    pi: f64,
    active: Vec<Activity>,
    /// The weights of the active subjects, where they differ from 1.
    weights: Vec<f64>,
}

/// The blocks of one stream of requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Blocks {
    from: u64,
    open: Vec<Activity>,
    closed: VecDeque<ClosedBlock>,
    /// The entries of all closed blocks.
    closed_entries: usize,
    /// Late failures by the beginning of their block.
    late: Vec<(u64, Activity)>,
}

impl Blocks {
    /// Blocks from this second on.
    pub(super) fn new(from: u64) -> Self {
        Self { from, ..Self::default() }
    }

    /// A cell that started in the open block.
    pub(super) fn add(&mut self, arm: Arm, subject: u16, judged: u32, failed: u32) {
        self.open.push(Activity { arm, subject, judged, failed });
    }

    /// Failures of requests that started in this second and were counted before.
    pub(super) fn add_late(&mut self, second: u64, arm: Arm, subject: u16, failed: u32) {
        let activity = Activity { arm, subject, judged: 0, failed };
        if self.from <= second {
            self.open.push(activity);
        } else if let Some(block) =
            self.closed.iter().find(|it| it.from <= second && second < it.until)
        {
            self.late.push((block.from, activity));
        }
    }

    /// How many entries it holds.
    pub(super) fn len(&self) -> usize {
        self.open.len() + self.late.len() + self.closed_entries
    }

    /// Drops what only late failures need.
    pub(super) fn forget_closed(&mut self) {
        self.closed.clear();
        self.closed_entries = 0;
        self.late.clear();
    }

    /// Drops the open block.
    pub(super) fn drop_open(&mut self, from: u64) {
        self.open.clear();
        self.from = from;
    }

    /// Ends the block before this second if both arms were active in it. Returns the failures.
    pub(super) fn end(&mut self, until: u64, subjects: &Subjects) -> Vec<Mark> {
        let mut marks = self.late_marks();
        merge(&mut self.open);
        let active = |arm| self.open.iter().filter(|it| it.arm == arm && 0 < it.judged).count();
        let (control, trial) = (active(Arm::Control), active(Arm::Trial));
        if control == 0 || trial == 0 {
            if SPAN_MAX_S <= until.saturating_sub(self.from) {
                self.drop_open(until);
            }
            return marks;
        }
        let mut active = std::mem::take(&mut self.open);
        active.retain(|it| 0 < it.judged);
        let weights = weights(&active, subjects);
        let (mut trial, mut control) = (super::to_f64(trial as u64), super::to_f64(control as u64));
        if !weights.is_empty() {
            let sum = |arm| -> f64 {
                let of_arm = active.iter().zip(&weights).filter(|it| it.0.arm == arm);
                of_arm.map(|it| it.1).sum()
            };
            (trial, control) = (sum(Arm::Trial), sum(Arm::Control));
        }
        let pi = trial / (trial + control);
        active.shrink_to_fit();
        let block = ClosedBlock { until, from: self.from, pi, active, weights };
        let failed = block.active.iter().enumerate().filter(|it| 0 < it.1.failed);
        marks.extend(failed.map(|(index, it)| block.mark(it, index, it.judged)));
        self.closed_entries += block.active.len();
        self.closed.push_back(block);
        self.from = until;
        while let Some(old) = self.closed.pop_front_if(|it| it.until + KEEP_S < until) {
            self.closed_entries -= old.active.len();
        }
        marks
    }

    fn late_marks(&mut self) -> Vec<Mark> {
        let mut late = std::mem::take(&mut self.late);
        late.sort_unstable();
        late.dedup_by(|next, sum| {
            let same =
                next.0 == sum.0 && (next.1.arm, next.1.subject) == (sum.1.arm, sum.1.subject);
            sum.1.failed += if same { next.1.failed } else { 0 };
            same
        });
        let mark_of = |(from, it): &(u64, Activity)| {
            let block = self.closed.iter().find(|block| block.from == *from)?;
            let index = block.active.binary_search_by_key(&it.key(), Activity::key).ok()?;
            Some(block.mark(it, index, block.active.get(index)?.judged))
        };
        late.iter().filter_map(mark_of).collect()
    }
}

impl ClosedBlock {
    /// The mark of the active subject with this index, which sent `judged` judged requests.
    fn mark(&self, activity: &Activity, index: usize, judged: u32) -> Mark {
        let share = (f64::from(activity.failed) / f64::from(judged.max(1))).min(1.0);
        let share = share * self.weights.get(index).copied().unwrap_or(1.0);
        Mark { subject: activity.subject, arm: activity.arm, share, pi: self.pi }
    }
}

/// What each active subject weighs: the sessions of one witness share a weight of 1. Empty: 1 each.
fn weights(active: &[Activity], subjects: &Subjects) -> Vec<f64> {
    if !subjects.have_shared_clients() {
        return Vec::new();
    }
    let mut sessions: BTreeMap<u16, u32> = BTreeMap::new();
    for it in active {
        *sessions.entry(subjects.witness(it.subject)).or_default() += 1;
    }
    let weight = |it: &Activity| {
        let together = sessions.get(&subjects.witness(it.subject)).copied().unwrap_or(1);
        1.0 / f64::from(together.max(1))
    };
    active.iter().map(weight).collect()
}

/// One entry for each subject, in order.
fn merge(activities: &mut Vec<Activity>) {
    activities.sort_unstable_by_key(Activity::key);
    activities.dedup_by(|next, sum| {
        let same = next.key() == sum.key();
        if same {
            sum.judged = sum.judged.saturating_add(next.judged);
            sum.failed = sum.failed.saturating_add(next.failed);
        }
        same
    });
}
