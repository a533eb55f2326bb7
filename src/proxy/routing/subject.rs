//! Who a request comes from, and where its outcome is counted.

use std::sync::Arc;

use crate::proxy::backend::Backend;
use crate::proxy::backend::client_request::ClientRequest;
use crate::proxy::backend::counted_subject::{CountedSubject, Purpose};
use crate::proxy::backend::failing_sources::Source;
use crate::proxy::backend::recent_subjects::Identity;
use crate::proxy::backend::trial_cells::TrialSubject;
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
        let source = Source {
            identity: Identity::Session(*session.key()),
            hash: self.recent.hash(b's', session.key()),
            client: client_identity(request, &self.recent),
        };
        self.counted(view, source, backend, || view.counted(session, request, backend.number))
    }

    /// The subject of a client without a session.
    pub(in crate::proxy) fn counted_client(
        &self,
        view: &RoutingView,
        request: &ClientRequest,
        backend: &Backend,
    ) -> CountedSubject {
        self.counted(view, self.client_source(request), backend, || {
            let assignment = view.assignment.as_ref()?;
            let client = assignment.of_client(request);
            assignment.counted((client, client), backend.number)
        })
    }

    /// The subject of a request that is routed by this trial.
    pub(super) fn counted_on_trial(
        &self,
        request: &ClientRequest,
        backend: &Backend,
        subject: Option<TrialSubject>,
    ) -> CountedSubject {
        let (failing, source) = (Arc::clone(&backend.failing_sources), self.client_source(request));
        CountedSubject {
            failing,
            source,
            purpose: subject.map_or(Purpose::Nothing, Purpose::Trial),
            active_in: None,
        }
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
        CountedSubject { failing, source, purpose, active_in: None }
    }

    fn client_source(&self, request: &ClientRequest) -> Source {
        let client = client_identity(request, &self.recent);
        Source { identity: Identity::Client(client), hash: client, client }
    }
}
