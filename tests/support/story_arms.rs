//! The users of a ramp in a story.

use rollbackd::decide::{RampSettings, RampShares};
use rollbackd::judge::BLOCK_MS;
use rollbackd::model::{Arm, Command, Observation, RampStep, Release, ReleaseNumber, TrialCell};

use super::StoryRunner;
use crate::simulated_host::secs;

impl StoryRunner {
    /// Runs a line about the ramp. Returns false if it is another one.
    pub(super) fn run_ramp_line(&mut self, words: &[&str]) -> bool {
        let ppm = |word: &&str| {
            (word.trim_end_matches('%').parse::<f64>().unwrap() * 10_000.0).round() as u32
        };
        match *words {
            ["promote"] => {
                self.command(Command::Promote { because: "it looks good".to_owned() });
            }
            ["ramp", ref shares @ ..] => {
                let shares = match shares {
                    ["auto"] => RampShares::Auto,
                    listed => RampShares::Listed(listed.iter().map(ppm).collect()),
                };
                self.host.policy.ramp = RampSettings {
                    shares,
                    step_max: secs(120),
                    waits: false,
                    control_min: 1,
                    sessions_stay: false,
                };
            }
            ["live", "sessions", "stay"] => self.host.policy.ramp.sessions_stay = true,
            ["movable", n] => self.users_ready.sessions = n.parse().unwrap(),
            ["clients", n] => self.users_ready.clients = n.parse().unwrap(),
            ["users", n] => self.users = n.parse().unwrap(),
            _ => return false,
        }
        true
    }

    /// Each user sends its requests to the release that its coin says.
    pub(super) fn serve_arms(
        &mut self,
        releases: &[Release],
        on_trial: ReleaseNumber,
        step: RampStep,
    ) {
        let per_block = self.requests_per_second / 4;
        let second = self.host.now.0.saturating_sub(1) / 1000;
        let mut cells = Vec::new();
        let control = self.host.releases.routed.unwrap();
        let arms = [(Arm::Control, control), (Arm::Trial, on_trial)];
        let users: Vec<u64> = (0..per_block)
            .map(|_| {
                self.requests += 1;
                let user = self.requests * 7 % self.users;
                // Coins that are spread evenly, in another order than the users.
                (user * 31 % self.users) * (u64::MAX / self.users)
            })
            .collect();
        for (arm, number) in arms {
            let version = releases.iter().find(|it| it.number == number).unwrap().version.clone();
            let here = users.iter().filter(|user| step.includes(**user) == (arm == Arm::Trial));
            let here: Vec<u64> = here.copied().collect();
            let counts = self.behaviour(&version).serve(here.len() as f64);
            let mut bad = counts.server_fault + counts.tool_fault;
            for subject in here {
                let failed = u32::from(0 < bad);
                bad = bad.saturating_sub(1);
                let (client, call, started, excused) = (subject, 1, 1, 0);
                cells.push(TrialCell {
                    arm,
                    subject,
                    client,
                    call,
                    second,
                    started,
                    failed,
                    excused,
                });
            }
            self.observe(number, Observation::Block(BLOCK_MS, counts));
        }
        self.observe(on_trial, Observation::Cells(cells));
    }
}
