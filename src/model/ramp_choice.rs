use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::active_users::ActiveUsers;
use crate::model::time_text::format_seconds;

/// The ramp of one deploy, and why it is this one. It stays what it was at the start of the deploy,
/// whatever the configuration says later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RampChoice {
    /// The shares of its steps, in parts per million. Empty: all users at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares_ppm: Vec<u32>,
    /// Why.
    pub reason: RampReason,
}

/// Why a deploy has its ramp, or has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RampReason {
    /// The configuration has the shares.
    Configured,
    /// Enough users are there to compare.
    EnoughUsers(ActiveUsers),
    /// Too few users are there to compare.
    FewUsers {
        /// Those that are there.
        users: ActiveUsers,
        /// How many a ramp needs.
        needed: u64,
    },
    /// By the configuration, no live session moves to a new release.
    SessionsStay,
    /// The bake can end before the ramp.
    ShortBake {
        /// The bake, in milliseconds.
        bake_ms: u64,
        /// The longest ramp, in milliseconds.
        ramp_ms: u64,
    },
}

impl RampChoice {
    /// The choice and its reason in one text. None where the configuration made it.
    pub fn text(&self) -> Option<String> {
        let reason = self.reason.text()?;
        if self.shares_ppm.is_empty() {
            return Some(format!("all users at once: {reason}"));
        }
        let shares = self.shares_ppm.iter().map(|ppm| format!("{} %", f64::from(*ppm) / 10_000.0));
        Some(format!("{} of the users: {reason}", Vec::from_iter(shares).join(", ")))
    }
}

impl RampReason {
    /// The reason in words. None where the configuration has the shares.
    pub fn text(self) -> Option<String> {
        (self != Self::Configured).then(|| self.to_string())
    }
}

impl fmt::Display for RampReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Configured => f.write_str("configured"),
            Self::EnoughUsers(users) => users.fmt(f),
            Self::FewUsers { users, needed } => write!(f, "{users}, a ramp needs {needed}"),
            Self::SessionsStay => {
                f.write_str("live sessions do not move (session_state, move_sessions)")
            }
            Self::ShortBake { bake_ms, ramp_ms } => {
                let text = |ms| format_seconds(Duration::from_millis(ms).as_secs_f64());
                write!(f, "a ramp takes up to {}, the bake {}", text(ramp_ms), text(bake_ms))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_says_what_and_why() {
        let shares_ppm = vec![50_000, 250_000, 500_000];
        let all = |reason| RampChoice { shares_ppm: Vec::new(), reason };
        let users = |sessions, clients| ActiveUsers { sessions, clients };
        let few = |users| all(RampReason::FewUsers { users, needed: 20 });
        for (choice, text) in [
            (
                RampChoice { shares_ppm, reason: RampReason::EnoughUsers(users(213, 0)) },
                "5 %, 25 %, 50 % of the users: 213 active sessions can move",
            ),
            (few(users(1, 0)), "all users at once: 1 active session can move, a ramp needs 20"),
            (few(users(0, 0)), "all users at once: no active session can move, a ramp needs 20"),
            (
                few(users(0, 3)),
                "all users at once: 3 clients without a session are active, a ramp needs 20",
            ),
            (
                few(users(2, 1)),
                "all users at once: 2 active sessions can move, 1 client without a session is active, \
                 a ramp needs 20",
            ),
            (
                all(RampReason::SessionsStay),
                "all users at once: live sessions do not move (session_state, move_sessions)",
            ),
            (
                all(RampReason::ShortBake { bake_ms: 60_000, ramp_ms: 360_000 }),
                "all users at once: a ramp takes up to 6 min, the bake 60.0 s",
            ),
        ] {
            assert_eq!(choice.text().as_deref(), Some(text));
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<RampChoice>(&json).unwrap(), choice, "{json}");
        }
        assert_eq!(all(RampReason::Configured).text(), None);
    }
}
