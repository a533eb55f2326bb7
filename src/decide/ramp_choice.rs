//! The ramp of a deploy where the configuration leaves it open (`ramp = "auto"`, the default).
//!
//! The choice falls when the new release is ready, stands in the timeline, and holds for this deploy.
//! A ramp has a price: until its end most users stay on the previous release, and the tests of the arms
//! need users on both sides. So a deploy gets one only if all of this is so; else all users at once:
//!
//! - **A release is active.** At a first deploy there is nothing to compare with.
//! - **Live sessions move.** Otherwise only new sessions meet the release. Most traffic, and so the
//!   harm and the evidence, would stay where it is for the whole bake.
//! - **[`USERS_MIN`] users are active.** A user is a session that can move, or a client without a
//!   session, by its credentials or its address. The tests need three users on trial, and
//!   no user may carry more than 40 % of the evidence. With 20 users 5 % are one user, which the ramp
//!   widens to three, 25 % are five, and 50 % are ten on each side. With ten users the three are a
//!   third of all: the harm is hardly less than at once, one or two users decide, and what only one or
//!   two users meet is not found at all. At once, each user's requests count by themselves.
//! - **The longest ramp fits into the bake.** A ramp that the end of the bake cuts off waits for a
//!   person.
//!
//! Active is who sent a request in the last minutes, as far as this daemon saw. So right after a start of
//! the daemon a deploy has no ramp. Clients behind one address, without credentials, are one user.

use std::time::Duration;

use crate::decide::ramp::{RampSettings, RampShares};
use crate::model::{ActiveUsers, RampChoice, RampReason};

/// The shares of an automatic ramp, in parts per million. The last step leaves half as a control: what
/// a failing user tells is worth ln(1 / share), 3.0 at 5 %, 0.7 at 50 %, next to nothing at 95 %.
pub const AUTO_SHARES_PPM: [u32; 3] = [50_000, 250_000, 500_000];
/// Active users, below which a deploy has no automatic ramp.
pub const USERS_MIN: u64 = 20;

impl RampSettings {
    /// The ramp of a deploy with this bake; `users` are those that would meet it.
    pub fn choose(&self, bake: Duration, users: ActiveUsers) -> RampChoice {
        match &self.shares {
            RampShares::Listed(shares_ppm) => {
                let (shares_ppm, reason) = (shares_ppm.clone(), RampReason::Configured);
                RampChoice { shares_ppm, reason }
            }
            RampShares::Auto => match self.obstacle(bake) {
                Some(reason) => RampChoice { shares_ppm: Vec::new(), reason },
                None if users.total() < USERS_MIN => {
                    let reason = RampReason::FewUsers { users, needed: USERS_MIN };
                    RampChoice { shares_ppm: Vec::new(), reason }
                }
                None => {
                    let reason = RampReason::EnoughUsers(users);
                    RampChoice { shares_ppm: AUTO_SHARES_PPM.to_vec(), reason }
                }
            },
        }
    }

    /// Why no deploy with this bake has an automatic ramp, however many users there are.
    pub fn obstacle(&self, bake: Duration) -> Option<RampReason> {
        if self.sessions_stay {
            return Some(RampReason::SessionsStay);
        }
        let steps = u32::try_from(AUTO_SHARES_PPM.len()).unwrap_or(u32::MAX);
        let longest = self.step_max.saturating_mul(steps);
        let (bake_ms, ramp_ms) = (millis(bake), millis(longest));
        (bake < longest).then_some(RampReason::ShortBake { bake_ms, ramp_ms })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_mins(2);

    fn auto() -> RampSettings {
        RampSettings { shares: RampShares::Auto, step_max: STEP, ..RampSettings::default() }
    }

    fn users(sessions: u64) -> ActiveUsers {
        ActiveUsers { sessions, clients: 0 }
    }

    proptest! {
        /// A ramp only if every condition holds, and then always the same one.
        #[test]
        fn all_conditions_make_a_ramp_and_each_missing_one_the_switch(
            sessions in 0_u64..50,
            clients in 0_u64..50,
            bake_s in 0_u64..1_000,
            sessions_stay in any::<bool>(),
        ) {
            let settings = RampSettings { sessions_stay, ..auto() };
            let choice = settings.choose(Duration::from_secs(bake_s), ActiveUsers { sessions, clients });
            let wanted = USERS_MIN <= sessions + clients && 360 <= bake_s && !sessions_stay;
            prop_assert_eq!(!choice.shares_ppm.is_empty(), wanted, "{:?}", choice);
            prop_assert!(choice.text().is_some());
            prop_assert!(!wanted || choice.shares_ppm == AUTO_SHARES_PPM);
        }

        /// What the operator wrote holds for any number of users.
        #[test]
        fn listed_shares_hold_for_any_number_of_users(sessions in 0_u64..100, sessions_stay in any::<bool>()) {
            for listed in [vec![], vec![100_000, 500_000]] {
                let shares = RampShares::Listed(listed.clone());
                let settings = RampSettings { shares, sessions_stay, ..auto() };
                let choice = settings.choose(Duration::ZERO, users(sessions));
                prop_assert_eq!(&choice.shares_ppm, &listed);
                prop_assert_eq!(choice.reason, RampReason::Configured);
            }
        }
    }

    #[test]
    fn the_reason_is_the_one_that_more_users_would_not_change() {
        let short = auto().choose(Duration::from_mins(5), users(0)).reason;
        assert_eq!(short, RampReason::ShortBake { bake_ms: 300_000, ramp_ms: 360_000 });
        let stay = RampSettings { sessions_stay: true, ..auto() };
        assert_eq!(
            stay.choose(Duration::from_mins(5), users(500)).reason,
            RampReason::SessionsStay
        );
        let few = auto().choose(Duration::from_mins(6), users(USERS_MIN - 1)).reason;
        assert_eq!(few, RampReason::FewUsers { users: users(19), needed: 20 });
    }

    /// With the fewest users every step has some on trial that the step before had not, and the
    /// control is never smaller than the trial.
    #[test]
    fn each_share_of_the_fewest_users_is_more_of_them() {
        let mut before = 0;
        for ppm in AUTO_SHARES_PPM {
            let users = USERS_MIN * u64::from(ppm) / 1_000_000;
            assert!(before < users && users <= USERS_MIN - users, "{users} of {USERS_MIN}");
            before = users;
        }
    }
}
