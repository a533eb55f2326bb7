//! The scenes on which the parameters were chosen: what has to be found, and what has not.

use super::population::Stay;
use super::scene::{Part, Scene, Trouble};

/// What a healthy release fails.
pub const HEALTHY: f64 = 0.001;
/// What the promise allows.
pub const PROMISE: f64 = 0.005;
/// When late trouble begins, in seconds.
pub const LATE: f64 = 600.0;

const fn scene(name: &'static str, base: f64, trouble: Trouble) -> Scene {
    Scene { name, base, trouble, stay: Stay::Always }
}

const fn regression(name: &'static str, rate: f64, onset: f64, part: Part) -> Scene {
    scene(name, HEALTHY, Trouble::Regression { rate, onset, part })
}

/// Broken releases.
pub const BROKEN: &[Scene] = &[
    regression("all", 1.0, 0.0, Part::All),
    regression("20 %", 0.2, 0.0, Part::All),
    regression("5 %", 0.05, 0.0, Part::All),
    regression("1 %", 0.01, 0.0, Part::All),
    regression("one tool of 20", 1.0, 0.0, Part::Call(2)),
    regression("one subject in ten", 1.0, 0.0, Part::Subjects(0.1)),
    scene("drift to 5 %", HEALTHY, Trouble::Drift { to: 0.05, by: 1_200.0 }),
    regression("late: all", 1.0, LATE, Part::All),
    regression("late: 20 %", 0.2, LATE, Part::All),
    regression("late: 5 %", 0.05, LATE, Part::All),
    regression("late: one tool", 1.0, LATE, Part::Call(2)),
];

const fn outage(name: &'static str, rate: f64, lead: f64, jitter: f64) -> Scene {
    scene(name, HEALTHY, Trouble::Outage { rate, seconds: 60.0, lead, jitter })
}

const fn bursts(name: &'static str, mean: f64, height: f64, seconds: f64, in_step: bool) -> Scene {
    scene(name, 0.0, Trouble::Bursts { mean, height, seconds, in_step })
}

/// Releases that are no worse than the one before.
pub const HEALTHY_SCENES: &[Scene] = &[
    scene("healthy", HEALTHY, Trouble::Nothing),
    scene("at the promise", PROMISE, Trouble::Nothing),
    Scene {
        stay: Stay::Sessions(300.0, 600.0),
        ..scene("at the promise, users come and go", PROMISE, Trouble::Nothing)
    },
    bursts("bursts in step", PROMISE, 0.2, 5.0, true),
    scene("cold start 1 s of nothing", HEALTHY, Trouble::ColdStart { rate: 1.0, seconds: 1.0 }),
    scene("cold start 5 s at 50 %", HEALTHY, Trouble::ColdStart { rate: 0.5, seconds: 5.0 }),
    scene("cold start 10 s at 5 %", HEALTHY, Trouble::ColdStart { rate: 0.05, seconds: 10.0 }),
    scene(
        "one client retries, 50/s",
        HEALTHY,
        Trouble::RetryingClient { per_second: 50.0, seconds: 60.0 },
    ),
    scene(
        "one failing client on the trial",
        HEALTHY,
        Trouble::FailingClients { per_second: 5.0, count: 1, sessions: 1, on_trial: true },
    ),
    scene(
        "one failing client on the control",
        HEALTHY,
        Trouble::FailingClients { per_second: 5.0, count: 1, sessions: 1, on_trial: false },
    ),
    scene(
        "one failing client, 20 sessions on the trial",
        HEALTHY,
        Trouble::FailingClients { per_second: 0.25, count: 1, sessions: 20, on_trial: true },
    ),
    scene(
        "one failing client, 20 sessions on the control",
        HEALTHY,
        Trouble::FailingClients { per_second: 0.25, count: 1, sessions: 20, on_trial: false },
    ),
    scene("one in ten fails on both", HEALTHY, Trouble::FailOnBoth { share: 0.1 }),
    outage("outage, trial leads 2 s", 1.0, 2.0, 0.0),
    outage("outage, trial lags 2 s", 1.0, -2.0, 0.0),
    outage("outage, trial leads 5 s", 1.0, 5.0, 0.0),
    outage("outage, trial lags 5 s", 1.0, -5.0, 0.0),
    outage("outage, jitter 2 s", 1.0, 0.0, 2.0),
    outage("outage 30 %, jitter 5 s", 0.3, 0.0, 5.0),
    scene("cron 10 s at 30 %", HEALTHY, Trouble::Cron { rate: 0.3, seconds: 10.0, jitter: 5.0 }),
    scene(
        "flapping 80 %, 2 s",
        HEALTHY,
        Trouble::Flapping { rate: 0.8, mean: 2.0, seconds: 120.0 },
    ),
];

/// Bursts of one release alone: a difference between the arms, for which no figure is promised.
pub const ONE_SIDED: &[Scene] = &[
    bursts("each alone 20 %, 5 s", HEALTHY, 0.2, 5.0, false),
    bursts("each alone 100 %, 1 s", HEALTHY, 1.0, 1.0, false),
    bursts("each alone 5 %, 30 s", HEALTHY, 0.05, 30.0, false),
];
