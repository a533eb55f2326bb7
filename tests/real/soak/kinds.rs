//! What is deployed, and what happens to the daemon meanwhile.

/// A deploy, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// All users at once; accepted after its bake.
    AllAtOnce,
    /// Its echo fails: back.
    Broken,
    /// The same version again, which does nothing, and then with `--restart`.
    SameVersion,
    /// A ramp of one step; accepted.
    OneStep,
    /// A ramp of two steps; accepted.
    TwoSteps,
    /// A person ends the ramp, forward.
    Promoted,
    /// A person ends the ramp, back.
    Aborted,
    /// A person goes back after the release was accepted.
    RolledBack,
    /// The same with `--cut`.
    Cut,
    /// Held in its bake, and resumed.
    Held,
}

/// What happens to the daemon in the bake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    None,
    /// SIGUSR2.
    Handover,
    /// SIGKILL, and a start soon after.
    Kill,
}

impl Interruption {
    pub(super) const ALL: [Self; 3] = [Self::Handover, Self::Kill, Self::None];
}

pub(super) const ALL: &[Kind] = &[
    Kind::AllAtOnce,
    Kind::Broken,
    Kind::SameVersion,
    Kind::OneStep,
    Kind::TwoSteps,
    Kind::Promoted,
    Kind::Aborted,
    Kind::RolledBack,
    Kind::Cut,
    Kind::Held,
];

/// Those of each run of the tests.
pub(super) const SHORT: &[(Kind, Interruption)] = &[
    (Kind::AllAtOnce, Interruption::Handover),
    (Kind::Broken, Interruption::None),
    (Kind::Promoted, Interruption::Kill),
    (Kind::RolledBack, Interruption::None),
];

impl Kind {
    /// The settings of the service for it: a ramp or none, and its time.
    pub(super) fn settings(self, is_long: bool) -> String {
        let (ramp, bake) = match self {
            Self::OneStep => ("50%", 16),
            Self::TwoSteps => ("30%\", \"60%", 31),
            Self::Promoted | Self::Aborted => ("50%", 120),
            // Its verdict ends it.
            Self::Broken => ("100%", 120),
            _ if is_long => ("100%", 20),
            _ => ("100%", 7),
        };
        format!(
            r#"
            drain_timeout = "10s"
            stop_timeout = "2s"
            burst = "1s"
            rollbacks_per_day = 1000
            ramp = ["{ramp}"]
            ramp_step = "15s"
            bake = "{bake}s"
            "#
        )
    }
}
