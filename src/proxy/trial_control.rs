//! The assignment of subjects to two releases, as the daemon controls it.

use std::sync::Arc;

use crate::model::TrialCell;
use crate::proxy::Proxy;
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

    /// The requests of the trial since the last call.
    pub fn take_trial_cells(&self) -> Vec<TrialCell> {
        let assignment = self.view().assignment.clone();
        assignment.map(|assignment| assignment.cells().take()).unwrap_or_default()
    }
}
