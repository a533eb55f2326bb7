use std::collections::VecDeque;

use proptest::prelude::*;

use crate::proxy::session::state_machine::*;

const OLD: ReleaseNumber = ReleaseNumber(2);
const NEW: ReleaseNumber = ReleaseNumber(1);

/// The world around one session: a client, two releases, and an operator who goes back.
#[derive(Default)]
struct World {
    machine: Option<SessionMachine>,
    draining: bool,
    cut: bool,
    migration_forbidden: Option<MigrationRefused>,
    in_backoff: bool,
    /// Requests in the order in which they came.
    requests: Vec<TrackedRequest>,
    /// Those that wait for the end of a move.
    waiting: VecDeque<usize>,
    /// The one that waits for its own move.
    mover: Option<usize>,
}

#[derive(Default)]
struct TrackedRequest {
    idempotent: bool,
    /// Releases that it reached.
    sent_to: Vec<ReleaseNumber>,
    /// Where it is open, and in which generation.
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

impl World {
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
                assert!(self.mover.replace(index).is_none(), "two moves at once");
                let here = |it: &TrackedRequest| {
                    it.in_flight_at.is_some_and(|(release, _)| release == OLD)
                };
                let busy = self.requests.iter().any(here);
                let reachable = environment.backend_reachable && !self.machine().is_lost();
                assert!(!reachable || !busy, "moved with something open");
                assert!(environment.draining || self.machine().is_lost(), "moved without need");
            }
            Action::Wait => self.waiting.push_back(index),
            Action::SessionEnded | Action::NoRelease => self.respond(index),
            step @ (Action::Discard | Action::Acknowledge) => panic!("{step:?} for a request"),
        }
    }

    fn forward(&mut self, index: usize) {
        let (release, generation) = (self.machine().release(), self.machine().request_started());
        let request = &mut self.requests[index];
        assert!(request.idempotent || request.sent_to.is_empty(), "reached two releases");
        assert!(release != OLD || !self.cut, "sent to a release that is gone");
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

    /// The move is over: who caused it goes first, then who waited, in order.
    fn resume_waiting(&mut self) {
        let migrating = self.mover.take();
        let resumed: Vec<_> =
            migrating.into_iter().chain(std::mem::take(&mut self.waiting)).collect();
        resumed.into_iter().for_each(|index| self.request_arrives(index));
    }

    fn refuse_move(&mut self, reason: MigrationRefused) {
        let reachable = self.environment().backend_reachable && !self.machine().is_lost();
        self.machine().refuse_move(reason, reachable);
        let Some(index) = self.mover.take() else { return };
        // Asked once is enough: it goes on where it was, or is answered.
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

    /// The release died and runs again: what was open there broke off.
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
        // A late one, of before the last move, reaches nobody.
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
                // A notification may migrate the session, too; it has no answer to wait for.
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
            SimulatedEvent::MoveDone if self.mover.is_some() => {
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
            SimulatedEvent::DaemonRestarted if self.mover.is_none() => {
                let (release, generation) = (self.machine().release(), self.machine().generation());
                if self.requests.iter().all(|it| it.in_flight_at.is_none()) {
                    self.machine = Some(SessionMachine::new(release, generation));
                }
            }
            SimulatedEvent::MoveDone | SimulatedEvent::DaemonRestarted => (),
        }
    }

    /// Whatever is open comes to its end.
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
        assert!(self.waiting.is_empty() && self.mover.is_none());
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

    /// No request is lost, none is answered twice, none reaches two releases unless it is safe.
    #[test]
    fn every_interleaving_keeps_every_request(
        hard in proptest::bool::weighted(0.1),
        happenings in proptest::collection::vec(event_strategy(), 0..60),
    ) {
        let mut world = World::new(hard.then_some(MigrationRefused::StateNotRestorable));
        happenings.into_iter().for_each(|happening| world.apply(happening));
        world.run_to_end();
    }
}

fn draining_environment() -> Environment {
    Environment {
        backend_reachable: true,
        draining: true,
        active: Some(NEW),
        migration_forbidden: None,
        in_backoff: false,
    }
}

#[test]
fn an_idle_session_moves_at_its_next_request_and_a_busy_one_after_its_call() {
    let mut machine = SessionMachine::new(OLD, 0);
    let generation = machine.request_started();
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Forward
    );
    machine.request_ended(generation);
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Migrate(NEW)
    );
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Wait
    );
    machine.complete_move();
    assert_eq!((machine.release(), machine.generation()), (NEW, 1));
    let environment = Environment { draining: false, ..draining_environment() };
    assert_eq!(machine.on_client_message(ClientMessageKind::Request, environment), Action::Forward);
    // The call of the old generation may end late.
    machine.request_started();
    machine.request_ended(generation);
    assert!(!machine.is_idle());
}

#[test]
fn what_the_server_asked_is_answered_before_the_move() {
    let mut machine = SessionMachine::new(OLD, 0);
    machine.server_request_opened(0, "7");
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Forward
    );
    assert_eq!(machine.phase(), SessionPhase::Pinned(MigrationRefused::PendingRequest));
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Response(0), draining_environment()),
        Action::Forward
    );
    assert_eq!(machine.pin_reason(None), Some(MigrationRefused::PendingRequest));
    machine.server_request_closed(0, "7");
    assert_eq!(machine.pin_reason(None), None);
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Migrate(NEW)
    );
}

#[test]
fn a_cut_ends_what_can_not_go_on_and_nothing_else() {
    let unreachable = Environment { backend_reachable: false, ..draining_environment() };
    for (refusal, stays) in [
        (MigrationRefused::Protocol, false),
        (MigrationRefused::Capability, false),
        (MigrationRefused::Credentials, true),
        (MigrationRefused::OpenFailed, true),
    ] {
        let mut machine = SessionMachine::new(OLD, 0);
        assert_eq!(
            machine.on_client_message(ClientMessageKind::Request, draining_environment()),
            Action::Migrate(NEW)
        );
        machine.refuse_move(refusal, true);
        assert_eq!(machine.pin_reason(None), Some(refusal));
        assert_eq!(machine.on_release_cut(None), (!stays).then_some(refusal));
        let action = if stays { Action::Migrate(NEW) } else { Action::SessionEnded };
        assert_eq!(
            machine.on_client_message(ClientMessageKind::Request, unreachable),
            action,
            "{refusal:?}"
        );
    }
    let mut machine = SessionMachine::new(OLD, 0);
    assert_eq!(
        machine.on_release_cut(Some(MigrationRefused::StateNotRestorable)),
        Some(MigrationRefused::StateNotRestorable)
    );
    let mut machine = SessionMachine::new(OLD, 0);
    machine.task_started(0);
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Forward
    );
    assert_eq!(machine.on_release_cut(None), Some(MigrationRefused::LiveTask));
    let mut machine = SessionMachine::new(OLD, 0);
    machine.request_started();
    machine.server_request_opened(0, "1");
    assert_eq!(machine.on_release_cut(None), None);
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Response(0), unreachable),
        Action::Discard
    );
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, unreachable),
        Action::Migrate(NEW)
    );
}

#[test]
fn a_rollback_that_is_called_off_leaves_the_session_where_it_is() {
    let mut machine = SessionMachine::new(OLD, 0);
    machine.server_request_opened(0, "1");
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, draining_environment()),
        Action::Forward
    );
    let active_again = Environment { draining: false, active: Some(OLD), ..draining_environment() };
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, active_again),
        Action::Forward
    );
    assert_eq!(machine.phase(), SessionPhase::Live);
}

#[test]
fn a_session_that_its_release_forgot_is_opened_anew_there() {
    let mut machine = SessionMachine::new(OLD, 0);
    let active_here = Environment { draining: false, active: Some(OLD), ..draining_environment() };
    machine.task_started(0);
    machine.mark_lost(0);
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, active_here),
        Action::Migrate(OLD)
    );
    machine.complete_move();
    assert_eq!((machine.release(), machine.generation()), (OLD, 1));
    // Who heard of it late says nothing new.
    machine.mark_lost(0);
    assert_eq!(machine.on_client_message(ClientMessageKind::Request, active_here), Action::Forward);
    machine.mark_lost(1);
    let hard_state = Environment {
        migration_forbidden: Some(MigrationRefused::StateNotRestorable),
        ..active_here
    };
    assert_eq!(
        machine.on_client_message(ClientMessageKind::Request, hard_state),
        Action::SessionEnded
    );
}

#[test]
fn a_task_ends_once_however_often_it_is_told() {
    let mut machine = SessionMachine::new(OLD, 0);
    machine.task_started(0);
    machine.task_started(0);
    machine.task_ended(0, "a");
    machine.task_ended(0, "a");
    assert!(!machine.is_idle());
    machine.task_ended(0, "b");
    assert!(machine.is_idle());
}

#[test]
fn only_what_changes_nothing_or_never_arrived_is_asked_again() {
    assert_eq!(replay_decision(true, true, false), ReplayDecision::Replay);
    assert_eq!(replay_decision(false, false, false), ReplayDecision::Replay);
    assert_eq!(replay_decision(true, false, false), ReplayDecision::Fail);
    assert_eq!(replay_decision(false, true, true), ReplayDecision::Fail);
}
