//! What goes wrong in a bake, and with which probability a request fails because of it.
#![expect(clippy::indexing_slicing, reason = "the indices are in range by construction")]

use super::super::rng::Rng;
use super::intervals::{Intervals, alternating, is_inside};
use super::population::{Size, Stay};

/// One kind of bake.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scene {
    pub name: &'static str,
    /// The share of requests that fails on both releases at any time.
    pub base: f64,
    pub trouble: Trouble,
    pub stay: Stay,
}

impl Scene {
    /// The share of requests that failed on the release before, ahead of the deploy.
    pub fn failed_before(&self) -> f64 {
        match self.trouble {
            Trouble::FailOnBoth { share } => self.base + share,
            _ => self.base,
        }
    }
}

/// What happens besides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    Nothing,
    /// The new release fails this share of what is affected, from this second on.
    Regression {
        rate: f64,
        onset: f64,
        part: Part,
    },
    /// The new release fails more and more, up to this share at this second.
    Drift {
        to: f64,
        by: f64,
    },
    /// Both fail. The new release begins and ends that much earlier; each begin and end of each
    /// release is late by an exponential time with mean `jitter`.
    Outage {
        rate: f64,
        seconds: f64,
        lead: f64,
        jitter: f64,
    },
    /// Both fail half of the time, each on its own, for phases with this mean.
    Flapping {
        rate: f64,
        mean: f64,
        seconds: f64,
    },
    /// Both fail every five minutes; each begins late by up to `jitter`.
    Cron {
        rate: f64,
        seconds: f64,
        jitter: f64,
    },
    /// The new release fails at the start.
    ColdStart {
        rate: f64,
        seconds: f64,
    },
    /// Both fail `height` in bursts, so that `mean` fail in all; in step, or each on its own.
    Bursts {
        mean: f64,
        height: f64,
        seconds: f64,
        in_step: bool,
    },
    /// A client repeats one failing request.
    RetryingClient {
        per_second: f64,
        seconds: f64,
    },
    /// Clients that always fail, in this arm (true: trial), from the fifth second on. Each has this many
    /// sessions.
    FailingClients {
        per_second: f64,
        count: usize,
        sessions: usize,
        on_trial: bool,
    },
    /// This share of users fails on both releases.
    FailOnBoth {
        share: f64,
    },
    /// One call fails on both releases for a while, every two minutes.
    CallStall {
        call: usize,
        rate: f64,
        seconds: f64,
        lead: f64,
    },
}

/// Whom a regression affects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    All,
    /// One call.
    Call(usize),
    /// This share of the users.
    Subjects(f64),
}

/// A session beside the population: requests a second, from, until, its arm if it is given, its client.
pub type ExtraSession = (f64, f64, f64, Option<bool>, usize);

/// One bake of a scene: what chance decided.
pub struct World {
    scene: Scene,
    /// When the control fails, and when the trial does.
    failing: [Intervals; 2],
    /// How much then fails.
    height: [f64; 2],
    struck: Vec<bool>,
    pub extra: Vec<ExtraSession>,
}

impl World {
    /// One bake of this many seconds.
    pub fn new(scene: Scene, size: Size, seconds: f64, rng: &mut Rng) -> Self {
        let mut world = Self {
            scene,
            failing: Default::default(),
            height: [0.0; 2],
            struck: vec![],
            extra: vec![],
        };
        match scene.trouble {
            Trouble::Outage { rate, seconds: lasting, lead, jitter } => {
                let start = 20.0 + rng.uniform() * (seconds - lasting - 80.0);
                let [a, b, c, d] = std::array::from_fn(|_| rng.exponential(jitter));
                world.height = [rate; 2];
                world.failing = [
                    vec![(start + a, start + lasting + b)],
                    vec![(start - lead + c, start - lead + lasting + d)],
                ];
            }
            Trouble::Flapping { rate, mean, seconds: lasting } => {
                let start = 10.0 + rng.uniform() * (seconds - lasting - 40.0);
                world.height = [rate; 2];
                world.failing =
                    std::array::from_fn(|_| alternating(rng, 0.5, mean, start, start + lasting));
            }
            Trouble::Cron { rate, seconds: lasting, jitter } => {
                world.height = [rate; 2];
                world.repeat(rng, 300.0, seconds, |rng, at| {
                    let late = rng.uniform() * jitter;
                    (at + late, at + late + lasting)
                });
            }
            Trouble::CallStall { rate, seconds: lasting, lead, .. } => {
                world.height = [rate; 2];
                world.repeat(rng, 120.0, seconds, |_, at| (at, at + lasting));
                world.failing[1].iter_mut().for_each(|it| *it = (it.0 - lead, it.1 - lead));
            }
            Trouble::ColdStart { rate, seconds: lasting } => {
                world.height = [0.0, rate];
                world.failing[1] = vec![(0.0, lasting)];
            }
            Trouble::Bursts { mean, height, seconds: burst, in_step } => {
                world.height = [height; 2];
                world.failing =
                    std::array::from_fn(|_| alternating(rng, mean / height, burst, 0.0, seconds));
                if in_step {
                    world.failing[1] = world.failing[0].clone();
                }
            }
            Trouble::FailOnBoth { share }
            | Trouble::Regression { part: Part::Subjects(share), .. } => {
                world.struck = (0..size.subjects).map(|_| rng.uniform() < share).collect();
            }
            _ => world.extra = extra_sessions(scene.trouble, seconds, rng),
        }
        world
    }

    fn repeat(
        &mut self,
        rng: &mut Rng,
        every: f64,
        seconds: f64,
        interval: impl Fn(&mut Rng, f64) -> (f64, f64),
    ) {
        let mut at = rng.uniform() * every;
        while at < seconds {
            for arm in &mut self.failing {
                arm.push(interval(rng, at));
            }
            at += every;
        }
    }

    /// Whether this user fails on both releases, and did so before.
    pub fn fails_on_both(&self, subject: usize) -> bool {
        let is_so = matches!(self.scene.trouble, Trouble::FailOnBoth { .. });
        is_so && self.struck.get(subject).is_some_and(|it| *it)
    }

    /// The probability that a request fails which starts at this second.
    pub fn failure_rate(&self, at: f64, on_trial: bool, subject: usize, call: usize) -> f64 {
        let arm = usize::from(on_trial);
        let mut rate = self.scene.base;
        let is_its_call = match self.scene.trouble {
            Trouble::CallStall { call: stalled, .. } => stalled == call,
            _ => true,
        };
        if is_its_call && is_inside(&self.failing[arm], at) {
            rate = rate.max(self.height[arm]);
        }
        match self.scene.trouble {
            Trouble::FailOnBoth { .. } if self.fails_on_both(subject) => 1.0,
            Trouble::Regression { rate: bad, onset, part } if on_trial && onset <= at => {
                let is_affected = match part {
                    Part::All => true,
                    Part::Call(broken) => broken == call,
                    Part::Subjects(_) => self.struck.get(subject).is_some_and(|it| *it),
                };
                if is_affected { rate.max(bad) } else { rate }
            }
            Trouble::Drift { to, by } if on_trial => (rate + to * (at / by).min(1.0)).min(1.0),
            _ => rate,
        }
    }
}

/// The sessions beside the population.
fn extra_sessions(trouble: Trouble, seconds: f64, rng: &mut Rng) -> Vec<ExtraSession> {
    match trouble {
        Trouble::RetryingClient { per_second, seconds: lasting } => {
            let start = rng.uniform() * (seconds - lasting);
            vec![(per_second, start, start + lasting, None, 0)]
        }
        Trouble::FailingClients { per_second, count, sessions, on_trial } => (0..count * sessions)
            .map(|index| (per_second, 5.0, seconds, Some(on_trial), index / sessions))
            .collect(),
        _ => Vec::new(),
    }
}
