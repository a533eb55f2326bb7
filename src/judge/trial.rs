//! Who is looked at: the release on trial, and after a rollback the one that took over.

use crate::model::{Look, Moment, Number, Signal};

use super::Judge;
use super::recovery::Recovery;

/// The look at one service.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    judge: Option<Judge>,
    recovery: Option<Recovery>,
    recovering: bool,
}

impl Trial {
    /// Opens what the look asks for, and closes what is over. `open` makes the judge of a release
    /// and its warm one.
    pub fn follow(
        &mut self,
        look: Look,
        now: Moment,
        open: impl FnOnce(Number, Option<Number>) -> Judge,
    ) {
        self.recovering = matches!(look, Look::Recovery { .. });
        match look {
            Look::Trial { active, warm } => {
                self.recovery = None;
                if self.judge.as_ref().is_none_or(|judge| judge.release() != active) {
                    self.judge = Some(open(active, warm));
                }
            }
            Look::Return { to } => _ = self.recovery.get_or_insert_with(|| Recovery::new(to, now)),
            Look::Recovery { active } => {
                self.judge = None;
                self.recovery.get_or_insert_with(|| Recovery::new(active, now));
            }
            Look::AsBefore => (),
            Look::Nothing => (self.judge, self.recovery) = (None, None),
        }
    }

    /// Takes one signal in.
    pub fn hear(&mut self, now: Moment, signal: &Signal) {
        self.judge.iter_mut().for_each(|judge| judge.hear(now, signal));
        self.recovery.iter_mut().for_each(|recovery| recovery.hear(now, signal));
    }

    /// The judge of the release on trial.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// The release that took over, and the reason to call it recovered, once there is one.
    pub fn recovered(&self, now: Moment) -> Option<(Number, String)> {
        let recovery = self.recovery.as_ref().filter(|_| self.recovering)?;
        Some((recovery.release(), recovery.recovered(now)?))
    }
}
