//! What judging costs.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rollbackd::judge::e_process::EProcess;
use rollbackd::judge::trial::{ReleaseTrial, TrialJudge};
use rollbackd::judge::{BLOCK_MS, Judge};
use rollbackd::model::{
    Arm, History, Moment, Observation, RampStep, ReleaseNumber, Signal, TrialCell,
};

use super::rng::Rng;
use super::rollbackd_judge::{Baseline, RollbackdJudge, counts};
use super::trial::bake::settings;

const ROUNDS: u32 = 200_000;
const NEW: ReleaseNumber = ReleaseNumber(2);

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
    let mut signals = TrialSignals::new(&ours);
    [
        measure("250 ms of a trial, 100/s, 3000 users", || trial.next()),
        measure("the same as signals, with a verdict", || signals.next()),
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

/// The same traffic as the daemon hears it.
struct TrialSignals {
    trial: ReleaseTrial,
    judge: Judge,
    cells: Cells,
}

impl TrialSignals {
    fn new(ours: &RollbackdJudge) -> Self {
        let history = History::default();
        let minutes = Duration::from_mins(2);
        let limits = ours.limits();
        let mut trial = ReleaseTrial::new(NEW, &limits, minutes, &history, Moment(0));
        let step = RampStep { step: 1, of: 1, share_ppm: 500_000, below_ppm: 500_000 };
        let signal = Signal { release: NEW, observation: Observation::Step(step) };
        trial.observe(Moment(0), &signal);
        Self { trial, judge: ours.judge(), cells: Cells::new() }
    }

    fn next(&mut self) {
        let cells = self.cells.next();
        let now = Moment(self.cells.block * 250);
        let block = Observation::Block(BLOCK_MS, counts(12, 0, false));
        for observation in [Observation::Cells(cells), block] {
            let signal = Signal { release: NEW, observation };
            self.trial.observe(now, &signal);
        }
        black_box((self.trial.verdict(now, &self.judge), self.trial.step_state(now)));
    }
}

/// A trial at 100 requests a second of 3,000 users, one of a hundred of which fails.
struct TrialBlocks {
    judge: TrialJudge,
    cells: Cells,
}

impl TrialBlocks {
    fn new() -> Self {
        let mut judge = TrialJudge::new(settings(7, (0, 0)), Moment(0));
        judge.begin_step(Moment(0), 0.5, 1_500);
        Self { judge, cells: Cells::new() }
    }

    fn next(&mut self) {
        let cells = self.cells.next();
        cells.iter().for_each(|cell| self.judge.observe(cell));
        self.judge.advance(Moment(self.cells.block * 250));
        black_box(self.judge.breach());
    }
}

/// The requests of one block after the other.
struct Cells {
    rng: Rng,
    block: u64,
}

impl Cells {
    fn new() -> Self {
        Self { rng: Rng::new(1), block: 0 }
    }

    fn next(&mut self) -> Vec<TrialCell> {
        self.block += 1;
        let cell = |_| {
            let subject = (self.rng.uniform() * 3_000.0) as u64;
            let hash = subject.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            TrialCell {
                arm: if hash >> 63 == 0 { Arm::Trial } else { Arm::Control },
                subject: hash,
                client: hash,
                call: (self.rng.uniform() * 20.0) as u64,
                second: (self.block - 1) / 4,
                started: 1,
                failed: u32::from(self.rng.uniform() < 0.01),
                excused: 0,
            }
        };
        (0..25).map(cell).collect()
    }
}
