//! Random days in which each deploy has a ramp.

use rollbackd::decide::{ON_TRIAL_MIN, RampSettings, RampShares, USERS_MIN};
use rollbackd::model::{ActiveUsers, Actor, Command, CommandRequest, Event, ReadinessReport};

use crate::simulated_host::{secs, settings};
use crate::{SCENARIOS, Scenario, seeds};

/// The same with a ramp: subjects go forward only, and all go back.
#[test]
fn random_scenarios_with_a_ramp_keep_the_invariants() {
    let seeds = seeds(SCENARIOS / 2);
    let (days, mut rollbacks, mut steps) = (seeds.end - seeds.start, 0, 0);
    for seed in seeds {
        let scenario = || {
            let mut scenario = Scenario::new(seed);
            scenario.host.policy.ramp = RampSettings {
                // Of the automatic ones, some have enough users and some do not.
                shares: match seed % 3 {
                    0 => RampShares::Auto,
                    _ => RampShares::Listed(vec![50_000, 250_000, 500_000]),
                },
                step_max: secs(120),
                waits: seed % 2 == 0,
                control_min: 1,
                sessions_stay: false,
            };
            let settings = settings(&scenario.host.policy);
            scenario.host.machine.configure(scenario.host.now, settings);
            scenario.ramps = true;
            scenario.run_counted()
        };
        match std::panic::catch_unwind(scenario) {
            Ok((seen, stepped)) => (rollbacks, steps) = (rollbacks + seen, steps + stepped),
            Err(_) => panic!("failed: SEED={seed} cargo sim"),
        }
    }
    assert!(days == 1 || days / 3 < rollbacks, "{rollbacks} rollbacks in {days} days");
    assert!(days == 1 || days < steps, "{steps} steps in {days} days");
}

impl Scenario {
    /// What is known when a release is ready.
    pub(crate) fn readiness(&mut self) -> Box<ReadinessReport> {
        let mut users = ActiveUsers::default();
        if self.ramps {
            users.sessions = self.rng.next_below(USERS_MIN);
            users.clients = self.rng.next_below(USERS_MIN);
        }
        Box::new(ReadinessReport { users, ..ReadinessReport::default() })
    }

    /// The next step, a wider one, an old one, or a person's word.
    pub(crate) fn random_step(&mut self) {
        let mut active: Vec<u64> =
            (0..self.rng.next_below(6)).map(|_| self.rng.next_below(u64::MAX)).collect();
        let number = 1 + self.rng.next_below(3) as u32;
        let (by_next, by_wider) = (self.rng.one_in(2), self.rng.one_in(2));
        let steps = self.host.watch().ramp_steps();
        let step = match self.host.watch().phase().ramp().map(|ramp| ramp.step) {
            Some(now) if by_next => steps.next(now, &mut active),
            Some(now) if by_wider => steps.widened(now, &mut active, ON_TRIAL_MIN),
            _ => steps.step(number),
        };
        if let Some(step) = step {
            self.handle_event(&Event::StepDue(step, "the dice say so".to_owned()));
        }
        if self.rng.one_in(20) {
            let command = Command::Promote { because: "so it shall be".to_owned() };
            let by = Actor::default();
            if let Ok(Some(entry)) = self.host.command(CommandRequest { by, command }) {
                self.after_entry(&entry);
            }
        }
    }
}
