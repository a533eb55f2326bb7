//! What judging costs.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use rollbackd::judge::BLOCK_MS;
use rollbackd::judge::e_process::EProcess;
use rollbackd::judge::trial::TrialJudge;
use rollbackd::model::{Arm, Moment, Observation, ReleaseNumber, Signal, TrialCell};

use super::rng::Rng;
use super::rollbackd_judge::{Baseline, RollbackdJudge, counts};
use super::trial::bake::settings;

const ROUNDS: u32 = 200_000;

/// Nanoseconds of each step, the fastest of five runs.
pub fn report() -> String {
    let ours = RollbackdJudge::with(Baseline::Traffic, 5);
    let mut process = EProcess::new(0.005, 1e-3, &ours.limits());
    let mut quiet = ours.judge();
    let signal = Signal {
        release: ReleaseNumber(2),
        observation: Observation::Block(BLOCK_MS, counts(25, 0, false)),
    };
    let mut loud = ours.judge();
    let bad = Signal {
        release: ReleaseNumber(2),
        observation: Observation::Block(BLOCK_MS, counts(25, 10, false)),
    };
    for _ in 0..100 {
        loud.observe(Moment(250), &bad);
    }
    let now = Moment(250);
    let mut trial = TrialBlocks::new();
    [
        measure("250 ms of a trial, 100/s, 3000 users", || trial.next()),
        measure("a block, one objective", || {
            process.update(now, BLOCK_MS, black_box(25), black_box(0))
        }),
        measure("a block, two objectives, heard by the judge", || {
            quiet.observe(now, black_box(&signal))
        }),
        measure("whether to look closer", || _ = black_box(quiet.is_suspicious(now))),
        measure("a verdict", || _ = black_box(loud.verdict(now))),
    ]
    .concat()
}

fn measure(name: &str, mut work: impl FnMut()) -> String {
    let mut best = f64::INFINITY;
    for run in 0..5 {
        let rounds = if run == 0 { ROUNDS / 100 } else { ROUNDS / 10 };
        let begun = Instant::now();
        (0..rounds).for_each(|_| work());
        best = best.min(begun.elapsed().as_secs_f64() / f64::from(rounds));
    }
    format!("{name:<44} {:>9.0} ns\n", 1e9 * best)
}

/// A trial at 100 requests a second of 3,000 users, one of a hundred of which fails.
struct TrialBlocks {
    judge: TrialJudge,
    rng: Rng,
    block: u64,
}

impl TrialBlocks {
    fn new() -> Self {
        let mut judge = TrialJudge::new(settings(7, (0, 0)), Moment(0));
        judge.begin_step(Moment(0), 0.5, 1_500);
        Self { judge, rng: Rng::new(1), block: 0 }
    }

    fn next(&mut self) {
        self.block += 1;
        for _ in 0..25 {
            let subject = (self.rng.uniform() * 3_000.0) as u64;
            let hash = subject.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let arm = if hash >> 63 == 0 { Arm::Trial } else { Arm::Control };
            self.judge.observe(&TrialCell {
                arm,
                subject: hash,
                client: hash,
                call: (self.rng.uniform() * 20.0) as u64,
                second: (self.block - 1) / 4,
                started: 1,
                failed: u32::from(self.rng.uniform() < 0.01),
                excused: 0,
            });
        }
        self.judge.advance(Moment(self.block * 250));
        black_box(self.judge.breach());
    }
}
