use crate::proxy::session::state_machine::*;

const OLD: ReleaseNumber = ReleaseNumber(2);
const NEW: ReleaseNumber = ReleaseNumber(1);

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
    // A call of the old generation may end late.
    machine.request_started();
    machine.request_ended(generation);
    assert!(!machine.is_idle());
}

#[test]
fn a_server_request_is_answered_before_the_move() {
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
fn a_cut_ends_only_sessions_that_cannot_migrate() {
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
fn an_aborted_rollback_leaves_the_session_at_its_release() {
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
fn a_session_that_its_release_lost_is_opened_there_again() {
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
    // A late report of the old generation changes nothing.
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
fn a_task_ends_once_however_often_it_is_reported() {
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
fn only_an_idempotent_or_unsent_request_is_replayed() {
    assert_eq!(replay_decision(true, true, false), ReplayDecision::Replay);
    assert_eq!(replay_decision(false, false, false), ReplayDecision::Replay);
    assert_eq!(replay_decision(true, false, false), ReplayDecision::Fail);
    assert_eq!(replay_decision(false, true, true), ReplayDecision::Fail);
}
