//! The assignment of subjects to two releases, as the daemon controls it.

use std::sync::Arc;

use crate::model::{BlockSources, ReleaseNumber, TrialCell};
use crate::proxy::Proxy;
use crate::proxy::backend::failing_sources::KnownFailing;
use crate::proxy::backend::trial_cells::TrialCells;
use crate::proxy::routing::assignment::{Assignment, AssignmentPlan};

impl Proxy {
    /// Assigns subjects to the release on trial and the control, from the next request on. Returns
    /// false, and changes nothing, when one of them is not reachable. [`Self::set_active`] ends it.
    pub fn assign(&self, plan: &AssignmentPlan) -> bool {
        let router = &self.state.router;
        let view = router.view.load();
        let is_reachable = |number| view.routes.get_open(number).is_some();
        if !is_reachable(plan.trial) || !is_reachable(plan.control) {
            return false;
        }
        let before = view.assignment.as_ref().and_then(|it| it.with_plan(plan));
        let assignment = before.unwrap_or_else(|| {
            let key = router.sessions.trial_key(plan.trial);
            let recent = Arc::clone(&router.recent);
            Assignment::new(plan.clone(), key, TrialCells::new(router.clock), recent)
        });
        let assignment = Arc::new(assignment);
        router.view.update(|view| {
            view.routes = view.routes.with_active(plan.control);
            view.assignment = Some(Arc::clone(&assignment));
        });
        true
    }

    /// Subjects and calls that mostly failed on the control before the trial; once.
    pub fn take_known_failing(&self) -> Vec<(u64, u64)> {
        let assignment = self.view().assignment.clone();
        assignment.map(|assignment| assignment.take_known_failing()).unwrap_or_default()
    }

    /// What fails on other releases now says nothing about this one, nor about them while it is on trial.
    pub(super) fn set_known_failing(&self, trial: Option<ReleaseNumber>) {
        let (view, recent) = (self.view(), &self.state.router.recent);
        let others = view.routes.backends().iter();
        let others = others.filter(|backend| trial.is_some_and(|trial| trial != backend.number));
        let failing = others.flat_map(|backend| recent.failing(backend.number));
        let known = failing.map(|(identity, call)| KnownFailing {
            identity,
            source: recent.source_hash(identity),
            call,
        });
        let known: Vec<_> = known.collect();
        let backends = view.routes.backends().iter();
        backends.for_each(|backend| backend.failing_sources.set_known_failing(&known));
    }

    /// The sources of the failures of a release since the last call, which was a block ago.
    pub fn take_failing_sources(&self, number: ReleaseNumber) -> BlockSources {
        self.backend(number).map(|it| it.failing_sources.take_block()).unwrap_or_default()
    }

    /// The requests of the trial since the last call.
    pub fn take_trial_cells(&self) -> Vec<TrialCell> {
        let assignment = self.view().assignment.clone();
        assignment.map(|assignment| assignment.cells().take()).unwrap_or_default()
    }
}
