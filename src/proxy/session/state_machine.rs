//! The state machine of one legacy session: its release, its open requests, and when it may move.
//!
//! Pure: no socket, no clock. The caller reports each event and executes each [`Action`]. A session
//! is at one release at a time. A move starts only when the session has nothing open at its release.
//! Requests that arrive during the move wait until it has succeeded or failed.

use crate::model::{MigrationRefused, ReleaseNumber};

/// The most server requests, and ended tasks, that are tracked. More server requests are not counted;
/// the oldest ended task is forgotten.
const TRACKED_IDS_MAX: usize = 32;

/// The state of one session.
#[derive(Debug)]
pub(in crate::proxy) struct SessionMachine {
    release: ReleaseNumber,
    generation: u32,
    phase: SessionPhase,
    /// Whether its release no longer knows it.
    lost: bool,
    /// Unanswered requests of the client, of this generation.
    in_flight: u32,
    /// Ids of server requests that the client has not answered.
    server_requests: Vec<Box<str>>,
    /// Tasks that started and have not ended.
    live_tasks: u32,
    /// Ids of tasks that ended, so that each end counts once.
    ended_tasks: Vec<Box<str>>,
}

/// The phase of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum SessionPhase {
    /// At its release.
    Live,
    /// It is being opened at this release.
    Moving(ReleaseNumber),
    /// It should move and cannot, at least now.
    Pinned(MigrationRefused),
    /// It ended: its id is no longer valid.
    Ended(MigrationRefused),
}

/// The kind of a message, or batch of messages, of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ClientMessageKind {
    /// Requests that need a response.
    Request,
    /// A GET request for a stream.
    Listen,
    /// Only notifications.
    Notification,
    /// Only responses to server requests, of this generation.
    Response(u32),
    /// A DELETE request, which ends the session.
    Delete,
}

/// The facts outside the session that decide about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Environment {
    /// Whether its release serves requests.
    pub backend_reachable: bool,
    /// Whether its release is draining, or gives its sessions to the active release.
    pub draining: bool,
    /// The active release.
    pub active: Option<ReleaseNumber>,
    /// The reason why the session may not move, if there is one.
    pub migration_forbidden: Option<MigrationRefused>,
    /// Whether a move was refused so recently that the next attempt must wait.
    pub in_backoff: bool,
}

/// What the caller does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Action {
    /// Send it to the release of the session.
    Forward,
    /// Move the session to this release first, then report the result.
    Migrate(ReleaseNumber),
    /// Ask again when the current move has finished.
    Wait,
    /// Accept it and drop it: it belongs to an earlier release.
    Discard,
    /// Accept it: the client ends a session that no release has.
    Acknowledge,
    /// Fail it: no release can serve it now.
    NoRelease,
    /// Fail it: the session has ended.
    SessionEnded,
}

/// What the proxy does with a request whose release is cut while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum ReplayDecision {
    /// Send it to the active release.
    Replay,
    /// Answer it with an error.
    Fail,
}

/// Decides about an open request of a release that is cut. A second release may get it only if the
/// client has seen no response yet, and it is idempotent or never reached the first release.
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
    /// A session at its release.
    pub(in crate::proxy) fn new(release: ReleaseNumber, generation: u32) -> Self {
        Self {
            release,
            generation,
            phase: SessionPhase::Live,
            lost: false,
            in_flight: 0,
            server_requests: Vec::new(),
            live_tasks: 0,
            ended_tasks: Vec::new(),
        }
    }

    /// Its release.
    pub(in crate::proxy) fn release(&self) -> ReleaseNumber {
        self.release
    }

    /// How often it has moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.generation
    }

    /// Its phase.
    pub(in crate::proxy) fn phase(&self) -> SessionPhase {
        self.phase
    }

    /// Decides what to do with a message of the client.
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
            // A move starts only without open server requests: this one was answered before.
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

    /// Its release no longer knows it, for example after a crash. So it has nothing open there.
    pub(in crate::proxy) fn mark_lost(&mut self, generation: u32) {
        if generation == self.generation && !matches!(self.phase, SessionPhase::Ended(_)) {
            (self.lost, self.live_tasks) = (true, 0);
            self.server_requests.clear();
        }
    }

    /// Whether its release no longer knows it.
    pub(in crate::proxy) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The target opened the session.
    pub(in crate::proxy) fn complete_move(&mut self) {
        let SessionPhase::Moving(to) = self.phase else { return };
        *self = Self::new(to, self.generation.wrapping_add(1));
    }

    /// The target did not open the session, for this reason.
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

    /// A request goes to its release; returns the generation that it belongs to.
    pub(in crate::proxy) fn request_started(&mut self) -> u32 {
        self.in_flight = self.in_flight.saturating_add(1);
        self.generation
    }

    /// A request of this generation has ended.
    pub(in crate::proxy) fn request_ended(&mut self, generation: u32) {
        if generation == self.generation {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// The server sends a request to the client.
    pub(in crate::proxy) fn server_request_opened(&mut self, generation: u32, id: &str) {
        let known = self.server_requests.iter().any(|other| &**other == id);
        if generation == self.generation && !known && self.server_requests.len() < TRACKED_IDS_MAX {
            self.server_requests.push(id.into());
        }
    }

    /// A server request is closed: the client answered, the server cancelled it, or its call ended.
    pub(in crate::proxy) fn server_request_closed(&mut self, generation: u32, id: &str) {
        if generation == self.generation {
            self.server_requests.retain(|other| &**other != id);
        }
    }

    /// A task started.
    pub(in crate::proxy) fn task_started(&mut self, generation: u32) {
        if generation == self.generation {
            self.live_tasks = self.live_tasks.saturating_add(1);
        }
    }

    /// A task ended. Several reports of the same end count once.
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

    /// Whether the server waits for a reply of the client.
    pub(in crate::proxy) fn awaits_client(&self) -> bool {
        !self.server_requests.is_empty()
    }

    /// Whether a move now would interrupt nothing.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.server_requests.is_empty() && self.live_tasks == 0
    }

    /// The reason that keeps it at a draining release, if there is one.
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

    /// Its release is cut. Returns the reason if the session cannot migrate and so ends.
    pub(in crate::proxy) fn on_release_cut(
        &mut self,
        migration_forbidden: Option<MigrationRefused>,
    ) -> Option<MigrationRefused> {
        let reason = self.pin_reason(migration_forbidden)?;
        // The cut answers open server requests; a refused move is tried again.
        let must_end = reason.is_final() || reason == MigrationRefused::LiveTask;
        if must_end && !matches!(self.phase, SessionPhase::Moving(_)) {
            self.phase = SessionPhase::Ended(reason);
            return Some(reason);
        }
        None
    }

    fn migrate_or_forward(&mut self, environment: Environment) -> Action {
        // A release that lost the session can open it again.
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
        // A release that does not serve has nothing open, whatever was counted.
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
mod interleaving_tests;
#[cfg(test)]
mod tests;
