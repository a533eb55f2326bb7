//! What is judged: the release on trial, and after a rollback the one that took over.

use std::time::Duration;

use crate::judge::recovery::Recovery;
use crate::judge::release_judge::Judge;
use crate::model::{JudgeTarget, Moment, ReleaseNumber, Signal};

/// The judges of one service.
#[derive(Debug, Clone, Default)]
pub struct ServiceJudge {
    judge: Option<Judge>,
    recovery: Option<Recovery>,
    recovery_decides: bool,
}

impl ServiceJudge {
    /// Closes what is over and starts what the target needs. Returns the release on trial and its
    /// warm one if their judge is missing: [`Self::open`] it.
    pub fn set_target(
        &mut self,
        target: JudgeTarget,
        now: Moment,
    ) -> Option<(ReleaseNumber, Option<ReleaseNumber>)> {
        self.recovery_decides = matches!(target, JudgeTarget::Recovery { .. });
        match target {
            JudgeTarget::Trial { active, warm } => {
                self.recovery = None;
                self.judge = self.judge.take().filter(|judge| judge.release() == active);
                return self.judge.is_none().then_some((active, warm));
            }
            JudgeTarget::Rollback { to } => {
                _ = self.recovery.get_or_insert_with(|| Recovery::new(to, now))
            }
            JudgeTarget::Recovery { active } => {
                self.judge = None;
                self.recovery.get_or_insert_with(|| Recovery::new(active, now));
            }
            JudgeTarget::Unchanged => (),
            JudgeTarget::Nothing => (self.judge, self.recovery) = (None, None),
        }
        None
    }

    /// Takes the judge of a bake.
    pub fn open(&mut self, judge: Judge) {
        self.judge = Some(judge);
    }

    /// The daemon did not run for this long.
    pub fn skip(&mut self, gap: Duration) {
        self.judge.iter_mut().for_each(|judge| judge.skip(gap));
    }

    /// Whether the bake waits while no counter can be read.
    pub fn set_extend_bake(&mut self, extend_bake: bool) {
        let scraped = self.judge.iter_mut().filter_map(|judge| judge.scraped.as_mut());
        scraped.for_each(|scraped| scraped.set_extend_bake(extend_bake));
    }

    /// Takes one signal in.
    pub fn observe(&mut self, now: Moment, signal: &Signal) {
        self.judge.iter_mut().for_each(|judge| judge.observe(now, signal));
        self.recovery.iter_mut().for_each(|recovery| recovery.observe(now, signal));
    }

    /// The judge of the release on trial.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// The release that took over, and the reason to call it recovered, once there is one.
    pub fn recovery(&self, now: Moment) -> Option<(ReleaseNumber, String)> {
        let recovery = self.recovery.as_ref().filter(|_| self.recovery_decides)?;
        Some((recovery.release(), recovery.recovery_reason(now)?))
    }
}
