//! The exact test of subjects: whose first failure of a step is on the new release.
//!
//! Null: which subjects fail, and when, does not depend on the release. When a step begins, `left`
//! subjects are on the control and `movers` of them, by the coin, move. The first failure of each is
//! then a draw without replacement: it is a mover with pi = movers / left, and a subject that is new
//! in the step with the step's share. Subjects on trial before carry no information.
//!
//! **Why E <= 1.** For rho in [`ODDS_RATIOS`] the factor rho/d or 1/d, d = rho pi + 1 - pi, has
//! expectation 1 given all labels before it. The sets of labels that this test and the others look at
//! differ, so it is never averaged with them: it is printed and gives no verdict.

const ODDS_RATIOS: [f64; 3] = [3.0, 10.0, 100.0];

/// The state of the test.
#[derive(Debug, Clone, Default)]
pub(super) struct SubjectTest {
    log_e: [f64; 3],
    left: u64,
    movers: u64,
    share: f64,
    /// Subjects with a first failure, and those among them on trial.
    failed: (u64, u64),
}

impl SubjectTest {
    /// A step begins: `left` subjects are on the control, and `movers` of them move.
    pub(super) fn begin_step(&mut self, left: u64, movers: u64, share: f64) {
        (self.left, self.movers, self.share) = (left, movers, share);
    }

    /// The first failure in this step of a subject that was on the control when the step began.
    pub(super) fn first_failure(&mut self, is_mover: bool) {
        if self.left == 0 {
            return;
        }
        let pi = super::to_f64(self.movers) / super::to_f64(self.left);
        self.left -= 1;
        self.movers = self.movers.saturating_sub(u64::from(is_mover));
        self.update(is_mover, pi);
    }

    /// The first failure of a subject that came after the step began.
    pub(super) fn first_failure_of_new(&mut self, on_trial: bool) {
        self.update(on_trial, self.share);
    }

    fn update(&mut self, on_trial: bool, pi: f64) {
        self.failed.0 += 1;
        self.failed.1 += u64::from(on_trial);
        if pi <= 0.0 || 1.0 <= pi {
            return;
        }
        for (log_e, rho) in self.log_e.iter_mut().zip(ODDS_RATIOS) {
            let d = rho * pi + 1.0 - pi;
            *log_e += (if on_trial { rho } else { 1.0 }).ln() - d.ln();
        }
    }

    /// The evidence.
    pub(super) fn e_value(&self) -> f64 {
        self.log_e.iter().map(|log_e| log_e.exp()).sum::<f64>() / 3.0
    }

    /// Subjects whose first failure counted, and those among them on the new release.
    pub(super) fn failed(&self) -> (u64, u64) {
        self.failed
    }
}
