//! What judging costs.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use rollbackd::judge::BLOCK_MS;
use rollbackd::judge::e_process::EProcess;
use rollbackd::model::{Moment, Observation, ReleaseNumber, Signal};

use super::rollbackd_judge::{Baseline, RollbackdJudge, counts};

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
    [
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
