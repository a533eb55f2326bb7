//! Who a request comes from, and where its outcome is counted.

use std::sync::Arc;

use crate::model::{Outcome, ReleaseNumber};
use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::counted_subject::{CountedSubject, Purpose, RefusedBy};
use crate::proxy::backend::failing_sources::Source;
use crate::proxy::backend::identity::Identity;
use crate::proxy::backend::trial_subject::TrialSubject;
use crate::proxy::routing::assignment::client_identity;
use crate::proxy::routing::router::Router;
use crate::proxy::routing::view::RoutingView;
use crate::proxy::session::Session;

impl Router {
    /// The subject of a session, whose request goes to this release.
    pub(super) fn counted_session(
        &self,
        view: &RoutingView,
        session: &Session,
        request: &ClientRequest,
        backend: &Backend,
    ) -> CountedSubject {
        let identity = Identity::Session(*session.key());
        let source = Source {
            identity,
            hash: self.recent.source_hash(identity),
            has_session: true,
            client: client_identity(request, &self.recent),
        };
        self.counted(view, source, backend, || view.counted(session, request, backend.number))
    }

    /// The subject of a client without a session that the proxy moves. `has_session`: its request opens one,
    /// or has one of another kind.
    pub(in crate::proxy) fn counted_client(
        &self,
        view: &RoutingView,
        request: &ClientRequest,
        has_session: bool,
        backend: &Backend,
    ) -> CountedSubject {
        let source = self.client_source(request, has_session);
        self.counted(view, source, backend, || {
            let assignment = view.assignment.as_ref()?;
            let client = assignment.of_client(request);
            assignment.counted((client, client), backend.number)
        })
    }

    /// The subject of a request that is routed by this trial.
    pub(super) fn counted_on_trial(
        &self,
        source: Source,
        backend: &Backend,
        subject: Option<TrialSubject>,
    ) -> CountedSubject {
        let failing = Arc::clone(&backend.failing_sources);
        CountedSubject {
            failing,
            source,
            purpose: subject.map_or(Purpose::Nothing, Purpose::Trial),
            refused_by: None,
        }
    }

    /// A session that stays where it is, because the release on trial did not open it.
    pub(super) fn refused_by(
        &self,
        view: &RoutingView,
        session: &Session,
        request: &ClientRequest,
        (release, outcome): (ReleaseNumber, Outcome),
    ) -> Option<Box<RefusedBy>> {
        if outcome == Outcome::Neutral {
            return None;
        }
        let backend = view.routes.get_open(release)?;
        let subject = self.counted_session(view, session, request, backend);
        let is_trial = view.assignment.as_deref().is_some_and(|it| it.plan.trial == release);
        let is_on_trial = is_trial && matches!(subject.purpose, Purpose::Trial(_));
        is_on_trial.then(|| Box::new(RefusedBy { backend: Arc::clone(backend), subject, outcome }))
    }

    fn counted(
        &self,
        view: &RoutingView,
        source: Source,
        backend: &Backend,
        on_trial: impl FnOnce() -> Option<TrialSubject>,
    ) -> CountedSubject {
        let purpose = match &view.assignment {
            Some(_) => on_trial().map_or(Purpose::Nothing, Purpose::Trial),
            None => Purpose::NextTrial(Arc::clone(&self.recent), backend.number),
        };
        let failing = Arc::clone(&backend.failing_sources);
        CountedSubject { failing, source, purpose, refused_by: None }
    }

    /// The source of a request without a session.
    pub(super) fn client_source(&self, request: &ClientRequest, has_session: bool) -> Source {
        let client = client_identity(request, &self.recent);
        Source { identity: Identity::Client(client), hash: client, has_session, client }
    }
}
