//! The life of one legacy session: where it is, what is open, and when it may move.
//!
//! Pure: no socket, no clock. Whoever holds it tells what happens, and does what it says. One
//! session is at one release at a time; a move begins only when nothing of it is open there, and
//! requests that arrive meanwhile wait until it is over, well or not.

use crate::model::{MigrationRefused, ReleaseNumber};

/// Requests of a server, and tasks, that are remembered at once. Beyond, the session counts as busy
/// until its release is cut.
const TRACKED_IDS_MAX: usize = 32;

/// A session.
#[derive(Debug)]
pub(in crate::proxy) struct SessionMachine {
    release: ReleaseNumber,
    generation: u32,
    phase: SessionPhase,
    /// Its release runs, and does not know it any more.
    lost: bool,
    /// Requests of the client without an answer, of this generation.
    in_flight: u32,
    /// Ids of requests of the server that wait for the client.
    server_requests: Vec<Box<str>>,
    /// Tasks that were begun, less those that ended.
    live_tasks: u32,
    /// Ids of tasks that are known to have ended.
    ended_tasks: Vec<Box<str>>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum SessionPhase {
    /// At its release.
    Live,
    /// Being opened anew at another one.
    Moving(ReleaseNumber),
    /// It should move and can not, at least now.
    Pinned(MigrationRefused),
    /// Over: its id leads nowhere.
    Ended(MigrationRefused),
}

/// What arrives from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ClientMessageKind {
    /// Requests that wait for an answer.
    Request,
    /// The wish to listen.
    Listen,
    /// Only notifications.
    Notification,
    /// Only answers to requests of the server, which it made in this generation.
    Response(u32),
    /// The end of the session.
    Delete,
}

/// How things stand around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Environment {
    /// Its release can be asked.
    pub backend_reachable: bool,
    /// Its release is being left.
    pub draining: bool,
    /// The release that has the traffic.
    pub active: Option<ReleaseNumber>,
    /// Why no session of this kind may move, if so.
    pub migration_forbidden: Option<MigrationRefused>,
    /// A move was refused a moment ago: not again yet.
    pub in_backoff: bool,
}

/// What to do with what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Action {
    /// Send it to the session's release.
    Forward,
    /// Move the session there first. Whoever is told so has to say how it went.
    Migrate(ReleaseNumber),
    /// It moves: ask again when that is over.
    Wait,
    /// Accept it, and send it nowhere: it belongs to a release that was left.
    Discard,
    /// Accept it: the client ends what no release holds any more.
    Acknowledge,
    /// No release is in charge.
    NoRelease,
    /// The session is over.
    SessionEnded,
}

/// What to do with a request whose release is cut while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ReplayDecision {
    /// Ask the release that took over.
    Replay,
    /// Answer with an error of ours.
    Fail,
}

/// What becomes of an open request of a release that is cut: it may go to a second release only
/// if it never reached the first one, or changes nothing, and the client saw no answer yet.
pub(in crate::proxy) fn replay_decision(
    sent: bool,
    idempotent: bool,
    response_seen: bool,
) -> ReplayDecision {
    if !response_seen && (idempotent || !sent) {
        ReplayDecision::Replay
    } else {
        ReplayDecision::Fail
    }
}

impl SessionMachine {
    /// A session at the release that opened it, or where it was when the daemon ended.
    pub(in crate::proxy) fn new(release: ReleaseNumber, generation: u32) -> Self {
        let (server_requests, ended_tasks) = (Vec::new(), Vec::new());
        let (phase, lost) = (SessionPhase::Live, false);
        Self {
            release,
            generation,
            phase,
            lost,
            in_flight: 0,
            server_requests,
            live_tasks: 0,
            ended_tasks,
        }
    }

    /// Its release.
    pub(in crate::proxy) fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// How often it moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.generation
    }

    /// Where it stands.
    pub(in crate::proxy) fn phase(&self) -> SessionPhase {
        self.phase
    }

    /// What to do with something that arrives.
    pub(in crate::proxy) fn on_client_message(
        &mut self,
        kind: ClientMessageKind,
        environment: Environment,
    ) -> Action {
        let environment = match self.lost {
            true => Environment { backend_reachable: false, draining: true, ..environment },
            false => environment,
        };
        match (self.phase, kind) {
            (SessionPhase::Ended(_), ClientMessageKind::Delete) => Action::Acknowledge,
            (SessionPhase::Ended(_), _) => Action::SessionEnded,
            (_, ClientMessageKind::Response(generation)) if generation != self.generation => {
                Action::Discard
            }
            // It moves only when no request of the server is open: this one was answered before.
            (SessionPhase::Moving(_), ClientMessageKind::Response(_)) => Action::Discard,
            (SessionPhase::Moving(_), _) => Action::Wait,
            _ if environment.backend_reachable && !environment.draining => {
                self.phase = SessionPhase::Live;
                Action::Forward
            }
            (_, ClientMessageKind::Response(_)) => self.forward_or(Action::Discard, environment),
            (_, ClientMessageKind::Delete) => self.forward_or(Action::Acknowledge, environment),
            _ => self.migrate_or_forward(environment),
        }
    }

    /// Its release forgot it: it died in the middle, say. Nothing of it is under way there.
    pub(in crate::proxy) fn mark_lost(&mut self, generation: u32) {
        if generation == self.generation && !matches!(self.phase, SessionPhase::Ended(_)) {
            (self.lost, self.live_tasks) = (true, 0);
            self.server_requests.clear();
        }
    }

    /// Whether its release forgot it.
    pub(in crate::proxy) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The target opened the session.
    pub(in crate::proxy) fn complete_move(&mut self) {
        let SessionPhase::Moving(to) = self.phase else { return };
        *self = Self::new(to, self.generation.wrapping_add(1));
    }

    /// The target did not open the session, and why.
    pub(in crate::proxy) fn refuse_move(
        &mut self,
        reason: MigrationRefused,
        backend_reachable: bool,
    ) {
        if let SessionPhase::Moving(_) = self.phase {
            let ended = reason.is_final() && !backend_reachable;
            self.phase =
                if ended { SessionPhase::Ended(reason) } else { SessionPhase::Pinned(reason) };
        }
    }

    /// A request goes to its release; the generation that it belongs to.
    pub(in crate::proxy) fn request_started(&mut self) -> u32 {
        self.in_flight = self.in_flight.saturating_add(1);
        self.generation
    }

    /// A request of this generation is over.
    pub(in crate::proxy) fn request_ended(&mut self, generation: u32) {
        if generation == self.generation {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// The server asks the client something.
    pub(in crate::proxy) fn server_request_opened(&mut self, generation: u32, id: &str) {
        let known = self.server_requests.iter().any(|other| &**other == id);
        if generation == self.generation && !known && self.server_requests.len() < TRACKED_IDS_MAX {
            self.server_requests.push(id.into());
        }
    }

    /// The client answered, or the server, or the end of its call, took the question back.
    pub(in crate::proxy) fn server_request_closed(&mut self, generation: u32, id: &str) {
        if generation == self.generation {
            self.server_requests.retain(|other| &**other != id);
        }
    }

    /// A task began.
    pub(in crate::proxy) fn task_started(&mut self, generation: u32) {
        if generation == self.generation {
            self.live_tasks = self.live_tasks.saturating_add(1);
        }
    }

    /// A task ended; told once or more often.
    pub(in crate::proxy) fn task_ended(&mut self, generation: u32, id: &str) {
        let known = self.ended_tasks.iter().any(|other| &**other == id);
        if generation == self.generation && !known && self.live_tasks > 0 {
            if self.ended_tasks.len() == TRACKED_IDS_MAX {
                self.ended_tasks.remove(0);
            }
            self.ended_tasks.push(id.into());
            self.live_tasks -= 1;
        }
    }

    /// Whether a move now would lose nothing that is under way.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.server_requests.is_empty() && self.live_tasks == 0
    }

    /// What keeps it at a release that is being left, if nobody asks it to move.
    pub(in crate::proxy) fn pin_reason(
        &self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        match self.phase {
            SessionPhase::Pinned(
                refusal @ (MigrationRefused::Protocol
                | MigrationRefused::Capability
                | MigrationRefused::StateNotRestorable
                | MigrationRefused::OpeningUnknown
                | MigrationRefused::Credentials
                | MigrationRefused::OpenFailed),
            ) => Some(refusal),
            SessionPhase::Ended(_) => None,
            _ if migration_forbidden.is_some() => migration_forbidden,
            _ if self.live_tasks > 0 => Some(MigrationRefused::LiveTask),
            _ if !self.server_requests.is_empty() => Some(MigrationRefused::PendingRequest),
            _ => None,
        }
    }

    /// Its release is cut. `Some`: it can not go on, and ends.
    pub(in crate::proxy) fn on_release_cut(
        &mut self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let reason = self.pin_reason(migration_forbidden)?;
        // What waited for the client is answered by the cut; what was refused is tried again.
        let must_end = reason.is_final() || reason == MigrationRefused::LiveTask;
        if must_end && !matches!(self.phase, SessionPhase::Moving(_)) {
            self.phase = SessionPhase::Ended(reason);
            return Some(reason);
        }
        None
    }

    fn migrate_or_forward(&mut self, environment: Environment) -> Action {
        // One that forgot it can open it anew.
        let can_host = |active: &ReleaseNumber| *active != self.release || self.lost;
        let Some(active) = environment.active.filter(can_host) else {
            return self.forward_or(Action::NoRelease, environment);
        };
        let permanent = match self.phase {
            SessionPhase::Pinned(refusal) if refusal.is_final() => Some(refusal),
            _ => environment.migration_forbidden,
        };
        if let Some(refusal) =
            permanent.or((self.live_tasks > 0).then_some(MigrationRefused::LiveTask))
        {
            self.phase = if environment.backend_reachable {
                SessionPhase::Pinned(refusal)
            } else {
                SessionPhase::Ended(refusal)
            };
            return self.forward_or(Action::SessionEnded, environment);
        }
        // A release that can not be asked any more holds nothing open, whatever was counted.
        if environment.backend_reachable && !self.is_idle() {
            if !self.server_requests.is_empty() {
                self.phase = SessionPhase::Pinned(MigrationRefused::PendingRequest);
            }
            return Action::Forward;
        }
        if environment.in_backoff {
            return self.forward_or(Action::NoRelease, environment);
        }
        self.phase = SessionPhase::Moving(active);
        Action::Migrate(active)
    }

    fn forward_or(&self, otherwise: Action, environment: Environment) -> Action {
        if environment.backend_reachable { Action::Forward } else { otherwise }
    }
}

#[cfg(test)]
mod tests;
