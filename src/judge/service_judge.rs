//! What is judged: the release on trial, the same one after its bake, and after a rollback the one that
//! took over.

use std::time::Duration;

use crate::judge::recovery::Recovery;
use crate::judge::release_judge::Judge;
use crate::model::{JudgeTarget, Moment, ReleaseNumber, Signal};

/// A judge that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeToOpen {
    /// The release that it judges.
    pub release: ReleaseNumber,
    /// The release that could take over.
    pub warm: Option<ReleaseNumber>,
    /// Whether the bake of the release is over.
    pub after_bake: bool,
}

/// The judges of one service.
#[derive(Debug, Clone, Default)]
pub struct ServiceJudge {
    judge: Option<Judge>,
    /// Whether the release of that judge is accepted.
    after_bake: bool,
    recovery: Option<Recovery>,
    recovery_decides: bool,
}

impl ServiceJudge {
    /// Closes what is over and starts what the target needs. Returns a judge that is missing:
    /// [`Self::open`] it.
    pub fn set_target(&mut self, target: JudgeTarget, now: Moment) -> Option<JudgeToOpen> {
        self.recovery_decides = matches!(target, JudgeTarget::Recovery { .. });
        let tools_allowed = self.judge.as_ref().and_then(Judge::tools_allowed);
        match target {
            JudgeTarget::Trial { active, warm } => {
                return self.keep_judge(JudgeToOpen { release: active, warm, after_bake: false });
            }
            JudgeTarget::AfterBake { active, warm } => {
                return self.keep_judge(JudgeToOpen { release: active, warm, after_bake: true });
            }
            JudgeTarget::Rollback { to } => {
                _ = self.recovery.get_or_insert_with(|| Recovery::new(to, tools_allowed, now));
            }
            JudgeTarget::Recovery { active } => {
                self.judge = None;
                self.recovery.get_or_insert_with(|| Recovery::new(active, tools_allowed, now));
            }
            JudgeTarget::Unchanged => (),
            JudgeTarget::Nothing => (self.judge, self.recovery) = (None, None),
        }
        None
    }

    /// Closes every judge but this one.
    fn keep_judge(&mut self, needed: JudgeToOpen) -> Option<JudgeToOpen> {
        self.recovery = None;
        let same_part = self.after_bake == needed.after_bake;
        self.judge = self.judge.take().filter(|it| it.release() == needed.release && same_part);
        self.after_bake = needed.after_bake;
        self.judge.is_none().then_some(needed)
    }

    /// Takes the judge that was missing.
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

    /// What the release failed last that took over.
    pub fn recovery_failure(&self) -> Option<String> {
        self.recovery.as_ref()?.last_failure().map(ToOwned::to_owned)
    }

    /// The release that took over, and the reason to call it recovered, once there is one.
    pub fn recovery(&self, now: Moment) -> Option<(ReleaseNumber, String)> {
        let recovery = self.recovery.as_ref().filter(|_| self.recovery_decides)?;
        Some((recovery.release(), recovery.recovery_reason(now)?))
    }
}
