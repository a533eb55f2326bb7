//! The configuration and the routing table, as one request sees them.
//!
//! A request loads the view once per attempt, and again after each wait: a retry exists because the
//! view has changed. Within an attempt, all decisions agree with each other.

use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::config::{Service, SessionState};
use crate::model::{MigrationRefused, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::trial_subject::TrialSubject;
use crate::proxy::routing::assignment::Assignment;
use crate::proxy::routing::routing_table::RoutingTable;
use crate::proxy::session::{Environment, Session};

/// What routing depends on. A change replaces the whole view.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct RoutingView {
    /// The settings.
    pub service: Arc<Service>,
    /// The releases that requests can go to.
    pub routes: RoutingTable,
    /// The release on trial.
    pub trial: Option<ReleaseNumber>,
    /// The release whose sessions migrate although it does not drain.
    pub migrating_from: Option<ReleaseNumber>,
    /// How subjects are assigned, while two releases have traffic.
    pub assignment: Option<Arc<Assignment>>,
}

/// The view that is valid now.
#[derive(Debug)]
pub(in crate::proxy) struct CurrentView {
    view: ArcSwap<RoutingView>,
    #[cfg(test)]
    loads: AtomicU64,
}

impl CurrentView {
    /// A view without releases.
    pub(in crate::proxy) fn new(service: Service) -> Self {
        Self {
            view: ArcSwap::from_pointee(RoutingView {
                service: Arc::new(service),
                routes: RoutingTable::default(),
                trial: None,
                migrating_from: None,
                assignment: None,
            }),
            #[cfg(test)]
            loads: AtomicU64::new(0),
        }
    }

    /// The view of this moment. A guard would hold one of the few fast slots of its thread across the
    /// waits of a request, so this is an `Arc`.
    pub(in crate::proxy) fn load(&self) -> Arc<RoutingView> {
        #[cfg(test)]
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.view.load_full()
    }

    /// Replaces the view by a changed copy.
    pub(in crate::proxy) fn update(&self, change: impl Fn(&mut RoutingView)) {
        self.view.rcu(|view| {
            let mut view = RoutingView::clone(view);
            change(&mut view);
            view
        });
    }

    /// How often the view was loaded.
    #[cfg(test)]
    pub(in crate::proxy) fn loads(&self) -> u64 {
        self.loads.load(Ordering::Relaxed)
    }
}

impl RoutingView {
    /// Why no session of this service may move, if that is so.
    pub(in crate::proxy) fn pinned_reason(&self) -> Option<MigrationRefused> {
        let is_hard = self.service.session_state == SessionState::Hard;
        is_hard.then_some(MigrationRefused::StateNotRestorable)
    }

    /// Whether this release is on trial.
    pub(in crate::proxy) fn is_on_trial(&self, release: ReleaseNumber) -> bool {
        self.trial == Some(release)
    }

    /// Whether a session can stay at its release.
    pub(in crate::proxy) fn can_stay(&self, session: &Session) -> bool {
        let is_lost = session.with_machine(|machine| machine.is_lost());
        !is_lost && self.routes.get_open(session.release()).is_some()
    }

    /// The release on trial, where the coin of this session puts it, or it is there already.
    fn assigned(&self, session: &Session) -> Option<&Arc<Backend>> {
        let assignment = self.assignment.as_deref()?;
        let plan = &assignment.plan;
        let goes =
            || plan.moves_sessions && plan.step.includes(assignment.of_session(session.key()));
        let is_on_trial = session.release() == plan.trial;
        if is_on_trial || goes() { self.routes.get_open(plan.trial) } else { None }
    }

    /// The subject of a session at this release, if its requests count.
    pub(in crate::proxy) fn counted(
        &self,
        session: &Session,
        request: &ClientRequest,
        release: ReleaseNumber,
    ) -> Option<TrialSubject> {
        let assignment = self.assignment.as_deref()?;
        let is_final = |reason: Option<MigrationRefused>| reason.is_some_and(|it| it.is_final());
        // It stays whatever its coin says; so would one that moved.
        if is_final(session.pin_reason(None)) {
            return None;
        }
        let takes_part = assignment.takes_part(session, is_final(self.pinned_reason()));
        let subject = assignment.of_session(session.key());
        takes_part
            .then(|| assignment.counted((subject, assignment.of_client(request)), release))
            .flatten()
    }

    /// What the state machine of a session must know.
    pub(in crate::proxy) fn environment(&self, session: &Session) -> Environment {
        let release = session.release();
        let own = self.routes.get_open(release);
        let takes_new = |it: &&Arc<Backend>| !it.draining.is_cancelled() && !it.cut.is_cancelled();
        let assigned = self.assigned(session).filter(takes_new);
        let active = assigned.or_else(|| self.routes.active().filter(takes_new));
        let active_is_other = active.is_some_and(|active| active.number != release);
        let moves = assigned.is_some() || self.migrating_from == Some(release);
        let is_migrating = active_is_other && moves;
        Environment {
            backend_reachable: own.is_some(),
            draining: own.is_none_or(|own| own.draining.is_cancelled()) || is_migrating,
            active: active.map(|active| active.number),
            migration_forbidden: self.pinned_reason(),
            in_backoff: false,
        }
    }
}
