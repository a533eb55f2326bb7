//! The judge of the phase: which one is missing, and what it counts.

use std::collections::BTreeMap;

use crate::decide::{Phase, SteadyWatch};
use crate::judge::service_judge::JudgeToOpen;
use crate::machine::ServiceMachine;
use crate::machine::bake::BakeRamp;
use crate::machine::input::BakeOpening;
use crate::model::{CallKey, Counts, Moment, ReleaseNumber, Signal};

impl ServiceMachine {
    /// The watch after a bake begins anew after each period, unless there is a breach to follow.
    pub(super) fn watch_anew(&mut self, now: Moment) {
        let phase = self.watch.phase();
        let follows = matches!(phase, Phase::Steady { watch: SteadyWatch::Breach { .. }, .. });
        if !follows && self.bake.is_watch_over(now) {
            self.bake.start_anew(now);
        }
    }

    /// The judge that the phase needs and that is not open yet.
    pub fn judge_to_open(&self) -> Option<JudgeToOpen> {
        self.bake.to_open()
    }

    /// Opens the judge, and replays what was recorded of its bake before a restart.
    pub fn open_judge(
        &mut self,
        now: Moment,
        opening: BakeOpening,
        replay: impl IntoIterator<Item = (Moment, Signal)>,
    ) {
        let since = self.watch.evidence_since();
        let step_max = self.settings.policy.ramp.step_max;
        let ramp = self.watch.phase().ramp().map(|it| BakeRamp { step: it.step, step_max });
        self.bake.open(now, opening, self.settings.slo.clone(), ramp, since, replay);
    }

    /// The release whose calls are due to be counted, once a second while it bakes.
    pub fn calls_due(&mut self) -> Option<ReleaseNumber> {
        self.bake.calls_due()
    }

    /// The calls since the last count, from the cumulative counts. Give it to [`Self::handle`].
    pub fn calls_since_last(
        &mut self,
        release: ReleaseNumber,
        counts: BTreeMap<CallKey, Counts>,
    ) -> Signal {
        self.bake.calls_since_last(release, counts)
    }
}
