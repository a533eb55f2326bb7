//! One bake of a scene, request by request, as the judge of the daemon hears of it.
#![expect(clippy::indexing_slicing, reason = "the indices are in range by construction")]

use std::collections::BTreeMap;
use std::time::Duration;

use rollbackd::decide::{ON_TRIAL_HELD_MIN, ON_TRIAL_MIN, RampSteps};
use rollbackd::judge::trial::{StepState, TrialJudge, TrialSettings, TrialTest};
use rollbackd::judge::{Indicator, Objective, SloSettings};
use rollbackd::model::{Arm, Counts, History, Moment, RampStep, TrialCell};

use super::super::rng::{Poisson, Rng};
use super::population::{CALLS, Population, Size};
use super::scene::{Scene, World};
use super::scenes::PROMISE;

/// The bake in seconds.
pub const SECONDS: u64 = 1_800;
/// The shares of the ramp.
pub const RAMP: RampSteps<'_> =
    RampSteps { shares_ppm: &[50_000, 250_000, 500_000], control_min: 1 };
const RAMP_FIRST: RampStep = RampStep { step: 1, of: 3, share_ppm: 50_000, below_ppm: 50_000 };
/// A step lasts at most this long, in seconds, and gets more users after this time.
const STEP_MAX: u64 = 120;
const WIDEN_AFTER: u64 = 5;
/// A user is active for this many seconds after a request.
const ACTIVE: u64 = 60;
/// The call of clients that always fail.
const FAILING_CALL: usize = 3;
/// A report about a second comes this long after it, in milliseconds.
const REPORTED_MS: u64 = 250;
/// The start of the bake on the daemon's clock, a multiple of a block.
const START_S: u64 = 1_000;

/// What came of one bake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The second of the verdict, and what found it.
    pub verdict: Option<(u64, TrialTest)>,
    /// Failed requests on the new release until then, or until the bake ended.
    pub harm: u64,
}

/// The default settings, but for the seconds of total failure. `before` has the requests of the last hour on
/// the release before, and the failed ones: as in the daemon, more is allowed where it broke its promise.
pub fn settings(total_failure: u64, before: (u64, u64)) -> TrialSettings {
    let availability =
        Objective { indicator: Indicator::Availability, error_budget: PROMISE, weight: 1.0 };
    let slo = SloSettings {
        objectives: vec![availability],
        bake: Duration::from_secs(SECONDS),
        probe_interval: Duration::from_secs(5),
        shadow_calls: false,
        ..SloSettings::default()
    };
    let (requests, server_fault) = before;
    let last_hour = Counts { ok: requests - server_fault, server_fault, ..Counts::default() };
    let history = History { last_hour, ..History::default() };
    let settings = TrialSettings::new(&slo, Duration::from_secs(120), &history);
    TrialSettings { total_failure: Duration::from_secs(total_failure), ..settings }
}

struct Subject {
    coin: u64,
    client: u64,
    on_trial: bool,
    /// The second of its last request.
    last: Option<u64>,
    /// The arm that the scene gives it.
    fixed: Option<bool>,
}

struct Bake {
    judge: TrialJudge,
    step: RampStep,
    step_began: u64,
    subjects: Vec<Subject>,
    regular: usize,
    cells: BTreeMap<(usize, usize), (u32, u32)>,
    harm: u64,
}

/// Runs one bake of this seed.
pub fn run(scene: Scene, size: Size, seed: u64, settings: TrialSettings) -> Outcome {
    let mut rng = Rng::new(seed.wrapping_mul(7_919).wrapping_add(977));
    let population = Population::new(size, scene.stay, SECONDS as f64, &mut rng);
    let world = World::new(scene, size, SECONDS as f64, &mut rng);
    let regular = std::iter::repeat_n((None, None), size.subjects);
    let extra = world.extra.iter().map(|it| (it.3, Some(it.4 as u64)));
    let subjects = regular.chain(extra).map(|(fixed, client)| {
        let coin = new_coin(&mut rng, fixed);
        Subject { coin, client: client.unwrap_or(coin), on_trial: false, last: None, fixed }
    });
    let subjects: Vec<_> = subjects.collect();
    let mut bake = Bake {
        judge: TrialJudge::new(settings, Moment(START_S * 1000)),
        step: RAMP_FIRST,
        step_began: START_S,
        subjects,
        regular: size.subjects,
        cells: BTreeMap::new(),
        harm: 0,
    };
    bake.mark_known_failing(&world, size, &mut rng);
    bake.begin_step(START_S, bake.step);
    let mut arrivals = Poisson::default();
    for second in 0..SECONDS {
        for _ in 0..arrivals.sample(size.rate, &mut rng) {
            let at = second as f64 + rng.uniform();
            if let Some((subject, call)) = population.draw(at, &mut rng) {
                let rate = world.failure_rate(at, bake.subjects[subject].on_trial, subject, call);
                bake.request(second, subject, call, rng.uniform() < rate);
            }
        }
        for (index, client) in world.extra.iter().enumerate() {
            if client.1 <= second as f64 && (second as f64) < client.2 {
                let sent = Poisson::default().sample(client.0, &mut rng);
                (0..sent)
                    .for_each(|_| bake.request(second, size.subjects + index, FAILING_CALL, true));
            }
        }
        bake.report(START_S + second);
        if let Some(test) = bake.judge.breach() {
            return Outcome { verdict: Some((second + 1, test)), harm: bake.harm };
        }
        bake.end_second(second);
    }
    Outcome { verdict: None, harm: bake.harm }
}

fn new_coin(rng: &mut Rng, fixed: Option<bool>) -> u64 {
    let coin = (rng.uniform() * (1_u64 << 53) as f64) as u64;
    match fixed {
        Some(true) => coin & 0xFF,
        Some(false) => u64::MAX - (coin & 0xFF),
        None => coin << 11,
    }
}

impl Bake {
    fn begin_step(&mut self, second: u64, step: RampStep) {
        for subject in &mut self.subjects {
            subject.on_trial |= step.includes(subject.coin);
            subject.on_trial = subject.fixed.unwrap_or(subject.on_trial);
        }
        self.step = step;
        self.step_began = second;
        let on_trial = self.subjects[..self.regular].iter().filter(|it| it.on_trial).count();
        let share = f64::from(step.below_ppm) / 1e6;
        self.judge.begin_step(Moment(second * 1000), share, on_trial);
    }

    /// The next step, or more users in this one, as the daemon does.
    fn end_second(&mut self, second: u64) {
        let now = START_S + second + 1;
        let waited = now - self.step_began;
        let state = self.judge.step_state(Moment(now * 1000));
        let least = match state {
            StepState::Held if STEP_MAX <= waited => ON_TRIAL_HELD_MIN,
            _ => ON_TRIAL_MIN,
        };
        let is_active = |it: &&Subject| it.last.is_some_and(|last| second - last < ACTIVE);
        let active = || self.subjects[..self.regular].iter().filter(is_active).map(|it| it.coin);
        let is_over = matches!(state, StepState::Done | StepState::TimedOut);
        let is_narrow = WIDEN_AFTER <= waited && !RampSteps::has_enough(self.step, active(), least);
        if !is_over && !is_narrow {
            return;
        }
        let mut active: Vec<u64> = active().collect();
        let next = RAMP.next(self.step, &mut active).filter(|_| is_over);
        let is_alone = active.len() == 1 && waited < STEP_MAX / 8;
        let may_widen = WIDEN_AFTER <= waited && !is_alone;
        let wider = || RAMP.widened(self.step, &mut active, least).filter(|_| may_widen);
        if let Some(step) = next.or_else(wider) {
            self.begin_step(now, step);
        }
    }

    fn mark_known_failing(&mut self, world: &World, size: Size, rng: &mut Rng) {
        let sum: f64 = (1..=size.subjects).map(|rank| 1.0 / rank as f64).sum();
        for index in (0..size.subjects).filter(|index| world.fails_on_both(*index)) {
            let sent = size.rate * 600.0 / sum / (index + 1) as f64;
            for call in 0..CALLS {
                let share = match call {
                    0 => 0.5,
                    1 => 0.05,
                    _ => 0.025,
                };
                if rng.uniform() < 1.0 - (-sent * share).exp() {
                    self.judge.mark_known_failing(self.subjects[index].coin, call as u64);
                }
            }
        }
    }

    fn request(&mut self, second: u64, subject: usize, call: usize, failed: bool) {
        let cell = self.cells.entry((subject, call)).or_default();
        cell.0 += 1;
        cell.1 += u32::from(failed);
        self.subjects[subject].last = Some(second);
        self.harm += u64::from(failed && self.subjects[subject].on_trial);
    }

    fn report(&mut self, second: u64) {
        for ((subject, call), (started, failed)) in std::mem::take(&mut self.cells) {
            let Subject { coin, client, on_trial, .. } = self.subjects[subject];
            self.judge.observe(&TrialCell {
                arm: if on_trial { Arm::Trial } else { Arm::Control },
                subject: coin,
                client,
                call: call as u64,
                second,
                started,
                failed,
                excused: 0,
            });
        }
        self.judge.advance(Moment((second + 1) * 1000 + REPORTED_MS));
    }
}
