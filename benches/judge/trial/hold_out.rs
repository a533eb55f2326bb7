//! Seeds and scenes that were written before the judge and are run last: no parameter was chosen
//! by looking at them.

use super::population::Stay;
use super::scene::{Part, Scene, Trouble};
use super::scenes::{HEALTHY, PROMISE};

/// The first seed. The other scenes use seeds from 0 on, far below it.
pub const FIRST_SEED: u64 = 7_300_000_000;

const COME_AND_GO: Stay = Stay::Sessions(240.0, 480.0);

const fn scene(name: &'static str, base: f64, trouble: Trouble) -> Scene {
    Scene { name, base, trouble, stay: Stay::Always }
}

/// Broken releases.
pub const BROKEN: &[Scene] = &[
    scene("10 %", HEALTHY, Trouble::Regression { rate: 0.1, onset: 0.0, part: Part::All }),
    scene(
        "late at 300 s: 50 %",
        HEALTHY,
        Trouble::Regression { rate: 0.5, onset: 300.0, part: Part::All },
    ),
    scene(
        "one heavy tool half broken",
        HEALTHY,
        Trouble::Regression { rate: 0.5, onset: 0.0, part: Part::Call(1) },
    ),
    scene(
        "one subject in five, from 60 s",
        HEALTHY,
        Trouble::Regression { rate: 1.0, onset: 60.0, part: Part::Subjects(0.2) },
    ),
    scene("drift to 20 % in 10 min", HEALTHY, Trouble::Drift { to: 0.2, by: 600.0 }),
    Scene {
        stay: COME_AND_GO,
        ..scene(
            "20 %, users come and go",
            HEALTHY,
            Trouble::Regression { rate: 0.2, onset: 0.0, part: Part::All },
        )
    },
];

/// Releases that are no worse than the one before.
pub const HEALTHY_SCENES: &[Scene] = &[
    Scene { stay: COME_AND_GO, ..scene("healthy, come and go", HEALTHY, Trouble::Nothing) },
    scene("at 0.4 %", 0.004, Trouble::Nothing),
    Scene {
        stay: COME_AND_GO,
        ..scene(
            "outage 60 %, 20 s, leads 1 s",
            PROMISE,
            Trouble::Outage { rate: 0.6, seconds: 20.0, lead: 1.0, jitter: 0.0 },
        )
    },
    scene(
        "outage 5 min, lags 3 s",
        HEALTHY,
        Trouble::Outage { rate: 1.0, seconds: 300.0, lead: -3.0, jitter: 0.0 },
    ),
    scene(
        "one tool stalls on both, 15 s",
        HEALTHY,
        Trouble::CallStall { call: 1, rate: 1.0, seconds: 15.0, lead: 1.0 },
    ),
    scene(
        "bursts in step 50 %, 2 s",
        0.0,
        Trouble::Bursts { mean: 0.003, height: 0.5, seconds: 2.0, in_step: true },
    ),
    scene("cold start 3 s at 30 %", HEALTHY, Trouble::ColdStart { rate: 0.3, seconds: 3.0 }),
    scene(
        "one client retries, 10/s, 10 min",
        HEALTHY,
        Trouble::RetryingClient { per_second: 10.0, seconds: 600.0 },
    ),
    scene(
        "two failing clients on the control",
        HEALTHY,
        Trouble::FailingClients { per_second: 2.0, count: 2, sessions: 1, on_trial: false },
    ),
    scene("one in twenty fails on both", HEALTHY, Trouble::FailOnBoth { share: 0.05 }),
];
