//! The tests of one call: a promise of its own, and the arms compared in it.

use crate::judge::trial::blocks::Blocks;
use crate::judge::trial::cell::Cell;
use crate::judge::trial::clip;
use crate::judge::trial::promise_test::PromiseTest;
use crate::judge::trial::settings::TrialSettings;
use crate::judge::trial::share_test::ShareTest;
use crate::judge::trial::subjects::{CALLS_MAX, Subjects};
use crate::model::Arm;

/// The error probability of the comparison within a call.
const CALL_SHARES_ALPHA: f64 = 0.02 / 3.0;
/// The first calls share this part of the error probability evenly, the others the rest.
const FIRST_CALLS: u16 = 20;
const FIRST_CALLS_SHARE: f64 = 0.9;

/// The tests of one call.
#[derive(Debug, Clone)]
pub(super) struct CallTests {
    pub(super) promise: PromiseTest,
    pub(super) shares: ShareTest,
    pub(super) blocks: Blocks,
    /// The prior mass that the promise test has had, and its block.
    mass: f64,
    block: u64,
    /// As in the judge: the promise at the end of the block that is compared next, and last.
    reached: bool,
    compared: bool,
}

impl CallTests {
    /// The tests of the call with this number; so much prior mass was spent before its first request.
    pub(super) fn new(
        settings: &TrialSettings,
        alpha: f64,
        call: u16,
        mass: f64,
        from: u64,
    ) -> Self {
        let share = if call < FIRST_CALLS {
            FIRST_CALLS_SHARE / f64::from(FIRST_CALLS)
        } else {
            (1.0 - FIRST_CALLS_SHARE) / f64::from(CALLS_MAX)
        };
        let alpha = alpha * share;
        let mut promise = PromiseTest::new(settings.call_budget, settings.min_effect, alpha);
        promise.start(0, mass);
        Self {
            promise,
            shares: ShareTest::new(CALL_SHARES_ALPHA, clip::TWO),
            blocks: Blocks::new(from),
            mass,
            block: 0,
            reached: false,
            compared: false,
        }
    }

    /// Cells of this call have started. Mass of the time without any comes with them.
    pub(super) fn start(&mut self, cells: &[Cell], subjects: &Subjects, mass: f64, block: u64) {
        if std::mem::replace(&mut self.block, block) != block {
            self.promise.begin_block();
        }
        let on_trial = || cells.iter().filter(|it| it.arm == Arm::Trial);
        let count = u32::try_from(on_trial().count()).unwrap_or(u32::MAX);
        if 0 < count {
            on_trial().for_each(|it| self.promise.credit(subjects.witness(it.subject)));
            let due = mass - std::mem::replace(&mut self.mass, mass);
            self.promise.start(count, due);
        }
    }

    /// A block of time is over; the arms in it are compared a second later.
    pub(super) fn freeze(&mut self) {
        self.reached = self.promise.is_reached();
    }

    /// The arms were compared.
    pub(super) fn end_block(&mut self) {
        self.shares.end_block(clip::TWO);
        self.compared = std::mem::take(&mut self.reached);
    }

    /// Whether both tests are over their thresholds.
    pub(super) fn is_broken(&self) -> bool {
        self.compared && self.promise.is_reached() && self.shares.is_reached()
    }
}
