//! Every interleaving of requests, moves, drains, cuts and restarts keeps every request.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::proxy::session::state_machine::*;

const OLD: ReleaseNumber = ReleaseNumber(2);
const NEW: ReleaseNumber = ReleaseNumber(1);

/// One session with its client, two releases, and a rollback from the first to the second.
#[derive(Default)]
struct Simulation {
    machine: Option<SessionMachine>,
    draining: bool,
    cut: bool,
    migration_forbidden: Option<MigrationRefused>,
    in_backoff: bool,
    /// Requests in the order of their arrival.
    requests: Vec<TrackedRequest>,
    /// Requests that wait for the end of a move.
    waiting: VecDeque<usize>,
    /// The request that caused the current move.
    migrating_request: Option<usize>,
}

#[derive(Default)]
struct TrackedRequest {
    idempotent: bool,
    /// The releases that received it.
    sent_to: Vec<ReleaseNumber>,
    /// The release and generation where it is open.
    in_flight_at: Option<(ReleaseNumber, u32)>,
    responses: u32,
    gave_up: bool,
}

#[derive(Debug, Clone, Copy)]
enum SimulatedEvent {
    RequestArrives { idempotent: bool },
    NotificationArrives,
    ResponseArrives(usize),
    ServerRequest,
    ClientResponse,
    TaskStarted,
    TaskEnded,
    ReleaseDraining,
    ReleaseCut,
    MoveDone,
    MoveRefused(MigrationRefused),
    WaiterTimedOut,
    DaemonRestarted,
    BackoffChanged(bool),
    SessionLost,
}

impl Simulation {
    fn new(migration_forbidden: Option<MigrationRefused>) -> Self {
        Self { machine: Some(SessionMachine::new(OLD, 0)), migration_forbidden, ..Self::default() }
    }

    fn machine(&mut self) -> &mut SessionMachine {
        self.machine.as_mut().unwrap()
    }

    fn environment(&mut self) -> Environment {
        let (draining, cut) = (self.draining, self.cut);
        let at_old = self.machine().release() == OLD;
        let active = Some(if draining || cut { NEW } else { OLD });
        Environment {
            backend_reachable: !at_old || !cut,
            draining: at_old && draining,
            active,
            migration_forbidden: self.migration_forbidden,
            in_backoff: self.in_backoff,
        }
    }

    fn request_arrives(&mut self, index: usize) {
        let environment = self.environment();
        match self.machine().on_client_message(ClientMessageKind::Request, environment) {
            Action::Forward => self.forward(index),
            Action::Migrate(to) => {
                assert!(to == NEW || self.machine().is_lost());
                assert!(self.migrating_request.replace(index).is_none(), "two moves at once");
                let here = |it: &TrackedRequest| {
                    it.in_flight_at.is_some_and(|(release, _)| release == OLD)
                };
                let busy = self.requests.iter().any(here);
                let reachable = environment.backend_reachable && !self.machine().is_lost();
                assert!(!reachable || !busy, "moved with an open request");
                assert!(environment.draining || self.machine().is_lost(), "moved without need");
            }
            Action::Wait => self.waiting.push_back(index),
            Action::SessionEnded | Action::NoRelease => self.respond(index),
            action @ (Action::Discard | Action::Acknowledge) => panic!("{action:?} for a request"),
        }
    }

    fn forward(&mut self, index: usize) {
        let (release, generation) = (self.machine().release(), self.machine().request_started());
        let request = &mut self.requests[index];
        assert!(request.idempotent || request.sent_to.is_empty(), "reached two releases");
        assert!(release != OLD || !self.cut, "sent to a release that was cut");
        request.sent_to.push(release);
        request.in_flight_at = Some((release, generation));
    }

    fn respond(&mut self, index: usize) {
        let request = &mut self.requests[index];
        assert_eq!(request.responses, 0, "answered twice");
        request.responses = 1;
        if let Some((_, generation)) = request.in_flight_at.take() {
            self.machine().request_ended(generation);
        }
    }

    /// The move has ended: its cause continues first, then the waiting requests in order.
    fn resume_waiting(&mut self) {
        let migrating = self.migrating_request.take();
        let resumed: Vec<_> =
            migrating.into_iter().chain(std::mem::take(&mut self.waiting)).collect();
        resumed.into_iter().for_each(|index| self.request_arrives(index));
    }

    fn refuse_move(&mut self, reason: MigrationRefused) {
        let reachable = self.environment().backend_reachable && !self.machine().is_lost();
        self.machine().refuse_move(reason, reachable);
        let Some(index) = self.migrating_request.take() else { return };
        // One attempt a request: it stays at its release, or gets an error.
        if reachable {
            self.forward(index)
        } else {
            self.respond(index)
        }
        self.resume_waiting();
    }

    fn cut(&mut self) {
        (self.draining, self.cut) = (true, true);
        let migration_forbidden = self.migration_forbidden;
        if self.machine().release() == OLD {
            self.machine().on_release_cut(migration_forbidden);
        }
        for index in 0..self.requests.len() {
            let Some((OLD, generation)) = self.requests[index].in_flight_at else { continue };
            self.machine().request_ended(generation);
            self.requests[index].in_flight_at = None;
            match replay_decision(true, self.requests[index].idempotent, false) {
                ReplayDecision::Replay => self.request_arrives(index),
                ReplayDecision::Fail => self.respond(index),
            }
        }
    }

    /// The release crashed and restarted: its open requests failed.
    fn lose_session(&mut self, generation: u32) {
        let release = self.machine().release();
        self.machine().mark_lost(generation);
        for index in 0..self.requests.len() {
            if self.requests[index].in_flight_at == Some((release, generation)) {
                self.respond(index);
            }
        }
    }

    fn client_responds(&mut self, generation: u32) {
        let environment = self.environment();
        if self.machine().on_client_message(ClientMessageKind::Response(generation), environment)
            == Action::Forward
        {
            self.machine().server_request_closed(generation, "0");
        }
        // A late response, from before the last move, is discarded.
        if generation > 0 {
            let late = self
                .machine()
                .on_client_message(ClientMessageKind::Response(generation - 1), environment);
            assert!(matches!(late, Action::Discard | Action::SessionEnded), "{late:?}");
        }
    }

    fn apply(&mut self, event: SimulatedEvent) {
        let generation = self.machine().generation();
        match event {
            SimulatedEvent::RequestArrives { idempotent } => {
                self.requests.push(TrackedRequest { idempotent, ..TrackedRequest::default() });
                self.request_arrives(self.requests.len() - 1);
            }
            SimulatedEvent::NotificationArrives => {
                let environment = self.environment();
                // A notification may migrate the session, too; it waits for no response.
                let kind = ClientMessageKind::Notification;
                if let Action::Migrate(_) = self.machine().on_client_message(kind, environment) {
                    self.machine().complete_move();
                }
            }
            SimulatedEvent::ResponseArrives(nth) => {
                let open: Vec<_> = (0..self.requests.len())
                    .filter(|at| self.requests[*at].in_flight_at.is_some())
                    .collect();
                if let Some(index) = open.get(nth % open.len().max(1)) {
                    self.respond(*index);
                }
            }
            SimulatedEvent::ServerRequest => self.machine().server_request_opened(generation, "0"),
            SimulatedEvent::ClientResponse => self.client_responds(generation),
            SimulatedEvent::TaskStarted => self.machine().task_started(generation),
            SimulatedEvent::TaskEnded => self.machine().task_ended(generation, "t"),
            SimulatedEvent::SessionLost => self.lose_session(generation),
            SimulatedEvent::BackoffChanged(resting) => self.in_backoff = resting,
            SimulatedEvent::ReleaseDraining => self.draining = true,
            SimulatedEvent::ReleaseCut => self.cut(),
            SimulatedEvent::MoveDone if self.migrating_request.is_some() => {
                self.machine().complete_move();
                self.resume_waiting();
            }
            SimulatedEvent::MoveRefused(refusal) => self.refuse_move(refusal),
            SimulatedEvent::WaiterTimedOut => {
                if let Some(index) = self.waiting.pop_back() {
                    self.requests[index].gave_up = true;
                    self.respond(index);
                }
            }
            SimulatedEvent::DaemonRestarted if self.migrating_request.is_none() => {
                let (release, generation) = (self.machine().release(), self.machine().generation());
                if self.requests.iter().all(|it| it.in_flight_at.is_none()) {
                    self.machine = Some(SessionMachine::new(release, generation));
                }
            }
            SimulatedEvent::MoveDone | SimulatedEvent::DaemonRestarted => (),
        }
    }

    /// Ends every open request, and checks the invariants.
    fn run_to_end(mut self) {
        for _ in 0..4 {
            self.apply(SimulatedEvent::MoveDone);
            for _ in 0..self.requests.len() {
                self.apply(SimulatedEvent::ResponseArrives(0));
            }
        }
        for (index, request) in self.requests.iter().enumerate() {
            assert_eq!(request.responses, 1, "request {index} was lost");
            assert!(request.idempotent || request.sent_to.len() <= 1, "{:?}", request.sent_to);
        }
        assert!(self.waiting.is_empty() && self.migrating_request.is_none());
    }
}

fn refusal_strategy() -> impl Strategy<Value = MigrationRefused> {
    prop_oneof![
        Just(MigrationRefused::Protocol),
        Just(MigrationRefused::Capability),
        Just(MigrationRefused::Credentials),
        Just(MigrationRefused::OpenFailed),
    ]
}

fn event_strategy() -> impl Strategy<Value = SimulatedEvent> {
    prop_oneof![
        8 => any::<bool>().prop_map(|idempotent| SimulatedEvent::RequestArrives { idempotent }),
        1 => Just(SimulatedEvent::NotificationArrives),
        6 => any::<usize>().prop_map(SimulatedEvent::ResponseArrives),
        1 => Just(SimulatedEvent::ServerRequest),
        1 => Just(SimulatedEvent::ClientResponse),
        1 => Just(SimulatedEvent::TaskStarted),
        1 => Just(SimulatedEvent::TaskEnded),
        1 => Just(SimulatedEvent::ReleaseDraining),
        1 => Just(SimulatedEvent::ReleaseCut),
        4 => Just(SimulatedEvent::MoveDone),
        1 => refusal_strategy().prop_map(SimulatedEvent::MoveRefused),
        1 => Just(SimulatedEvent::WaiterTimedOut),
        1 => Just(SimulatedEvent::DaemonRestarted),
        1 => any::<bool>().prop_map(SimulatedEvent::BackoffChanged),
        1 => Just(SimulatedEvent::SessionLost),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// No request is lost or answered twice; only an idempotent one reaches two releases.
    #[test]
    fn every_interleaving_keeps_every_request(
        hard in proptest::bool::weighted(0.1),
        events in proptest::collection::vec(event_strategy(), 0..60),
    ) {
        let mut simulation = Simulation::new(hard.then_some(MigrationRefused::StateNotRestorable));
        events.into_iter().for_each(|event| simulation.apply(event));
        simulation.run_to_end();
    }
}
