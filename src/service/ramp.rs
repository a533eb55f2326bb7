//! The ramp of a deploy at the proxy: which subjects go where, and what their requests came to.

use crate::config::{Service, SessionState};
use crate::control::{ArmOutcomes, ArmStatus, TrialStatus};
use crate::decide::Phase;
use crate::judge::Indicator;
use crate::machine::Input;
use crate::model::{
    ActiveUsers, Event, Moment, Observation, RampStep, Release, Signal, Ticket, WHOLE_PPM,
};
use crate::proxy::AssignmentPlan;
use crate::service::service_loop::ServiceLoop;

impl ServiceLoop {
    /// Sends the subjects of this step to the release on trial.
    pub(super) fn assign(
        &mut self,
        ticket: Ticket,
        (on_trial, control): (&Release, &Release),
        step: RampStep,
    ) {
        let now = self.clock.now();
        let since = self.watch().phase().ramp().map_or(now, |ramp| ramp.assigned_at);
        let plan = AssignmentPlan {
            trial: on_trial.number,
            control: control.number,
            step,
            since,
            moves_sessions: moves_sessions(&self.service),
            counts_tools: has_objective(&self.service, Indicator::Tools),
        };
        // What started before belongs to the step before.
        self.observe_cells(now);
        if self.proxy.assign(&plan) {
            self.observe_step(now, on_trial, step);
            self.input(Input::Event(Event::Routed(ticket)));
        }
    }

    /// The judge and the log of the bake learn of a step. Before the bake opens there is neither.
    pub(super) fn observe_step(&mut self, now: Moment, on_trial: &Release, step: RampStep) {
        if self.machine.trial().is_some_and(|trial| trial.step() != Some(step)) {
            let observation = Observation::Step(step);
            self.observe(now, Signal { release: on_trial.number, observation });
        }
    }

    /// The requests of both arms since the last call.
    pub(super) fn observe_cells(&mut self, now: Moment) {
        let Some(trial) = self.machine.trial() else { return };
        let release = trial.release();
        let failing = self.proxy.take_known_failing();
        if !failing.is_empty() {
            let observation = Observation::KnownFailing(failing);
            self.observe(now, Signal { release, observation });
        }
        let cells = self.proxy.take_trial_cells();
        if !cells.is_empty() {
            self.observe(now, Signal { release, observation: Observation::Cells(cells) });
        }
    }
}

impl ServiceLoop {
    /// Those that would take part in the ramp of a deploy.
    pub(super) fn active_users(&self) -> ActiveUsers {
        let active = self.watch().phase().active();
        active.map(|it| self.proxy.active_users(it.number, self.clock.now())).unwrap_or_default()
    }

    /// What `ramp = "auto"` chose for the deploy that is under way, or would choose for one now.
    pub(super) fn ramp_text(&self) -> Option<String> {
        match self.watch().phase() {
            Phase::Empty => None,
            Phase::Steady { .. } | Phase::Starting { active: Some(_), .. } => {
                self.watch().choose_ramp(self.active_users()).text()
            }
            _ => self.watch().ramp_choice()?.text(),
        }
    }

    /// The trial, while there is a ramp.
    pub(super) fn trial_status(&self, now: Moment) -> Option<TrialStatus> {
        let (phase, trial) = (self.watch().phase(), self.machine.trial()?);
        let RampStep { step, of, share_ppm, .. } = phase.ramp()?.step;
        let releases = [phase.active()?, phase.release(trial.release())?];
        let arms = trial.arms().into_iter().zip(releases).zip(["control", "trial"]);
        let arms =
            arms.zip(trial.outcomes()).map(|(((counts, release), arm), outcomes)| ArmStatus {
                arm: arm.to_owned(),
                version: release.version.clone(),
                subjects: u64::try_from(counts.subjects).unwrap_or(u64::MAX),
                requests: counts.started,
                failed: counts.failed,
                outcomes: ArmOutcomes {
                    server_fault: outcomes.server_fault,
                    tool_fault: outcomes.tool_fault,
                    client_fault: outcomes.client_fault,
                    neutral: outcomes.neutral,
                },
            });
        let missing = match trial.has_control() {
            true => trial.missing_text(now),
            false => Some("one side has no requests: nothing to compare with".to_owned()),
        };
        Some(TrialStatus {
            step,
            of,
            share: f64::from(share_ppm) / f64::from(WHOLE_PPM),
            arms: arms.collect(),
            summary: trial.tests_text(),
            missing,
            sessions_pinned: self.proxy.load(phase.active()?.number, now).pinned,
        })
    }
}

/// Whether live sessions take part in a ramp.
fn moves_sessions(service: &Service) -> bool {
    service.session_state != SessionState::Hard && service.move_sessions.to_new_release(true)
}

fn has_objective(service: &Service, indicator: Indicator) -> bool {
    service.slo.objectives.iter().any(|it| it.indicator == indicator)
}
