//! The life of one legacy session: where it is, what is open, and when it may move.
//!
//! Pure: no socket, no clock. Whoever holds it tells what happens, and does what it says. One
//! session is at one release at a time; a move begins only when nothing of it is open there, and
//! requests that arrive meanwhile wait until it is over, well or not.

use crate::model::{Number, Refusal};

/// Requests of a server, and tasks, that are remembered at once. Beyond, the session counts as busy
/// until its release is cut.
const REMEMBERED_MAX: usize = 32;

/// A session.
#[derive(Debug)]
pub(in crate::proxy) struct Life {
    release: Number,
    generation: u32,
    stage: Stage,
    /// Its release runs, and does not know it any more.
    lost: bool,
    /// Requests of the client without an answer, of this generation.
    open: u32,
    /// Ids of requests of the server that wait for the client.
    asked: Vec<Box<str>>,
    /// Tasks that were begun, less those that ended.
    tasks: u32,
    /// Ids of tasks that are known to have ended.
    ended_tasks: Vec<Box<str>>,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Stage {
    /// At its release.
    Live,
    /// Being opened anew at another one.
    Moving(Number),
    /// It should move and can not, at least now.
    Pinned(Refusal),
    /// Over: its id leads nowhere.
    Ended(Refusal),
}

/// What arrives from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum What {
    /// Requests that wait for an answer.
    Request,
    /// The wish to listen.
    Listen,
    /// Only notifications.
    Notification,
    /// Only answers to requests of the server, which it made in this generation.
    Response(u32),
    /// The end of the session.
    End,
}

/// How things stand around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Ground {
    /// Its release can be asked.
    pub reachable: bool,
    /// Its release is being left.
    pub left: bool,
    /// The release that has the traffic.
    pub active: Option<Number>,
    /// Why no session of this kind may move, if so.
    pub bound: Option<Refusal>,
    /// A move was refused a moment ago: not again yet.
    pub resting: bool,
}

/// What to do with what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Step {
    /// Send it to the session's release.
    Send,
    /// Move the session there first. Whoever is told so has to say how it went.
    Move(Number),
    /// It moves: ask again when that is over.
    Wait,
    /// Accept it, and send it nowhere: it belongs to a release that was left.
    Drop,
    /// Accept it: the client ends what no release holds any more.
    Forget,
    /// No release is in charge.
    NoRelease,
    /// The session is over.
    Over,
}

/// What to do with a request whose release is cut while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Fate {
    /// Ask the release that took over.
    Replay,
    /// Answer with an error of ours.
    Answer,
}

/// What becomes of an open request of a release that is cut: it may go to a second release only
/// if it never reached the first one, or changes nothing, and the client saw no answer yet.
pub(in crate::proxy) fn fate(sent: bool, safe: bool, seen: bool) -> Fate {
    if !seen && (safe || !sent) { Fate::Replay } else { Fate::Answer }
}

impl Life {
    /// A session at the release that opened it, or where it was when the daemon ended.
    pub(in crate::proxy) fn new(release: Number, generation: u32) -> Self {
        let (asked, ended_tasks) = (Vec::new(), Vec::new());
        let (stage, lost) = (Stage::Live, false);
        Self { release, generation, stage, lost, open: 0, asked, tasks: 0, ended_tasks }
    }

    /// Its release.
    pub(in crate::proxy) fn release(&self) -> Number {
        self.release
    }

    /// How often it moved.
    pub(in crate::proxy) fn generation(&self) -> u32 {
        self.generation
    }

    /// Where it stands.
    pub(in crate::proxy) fn stage(&self) -> Stage {
        self.stage
    }

    /// What to do with something that arrives.
    pub(in crate::proxy) fn arrive(&mut self, what: What, ground: Ground) -> Step {
        let ground = match self.lost {
            true => Ground { reachable: false, left: true, ..ground },
            false => ground,
        };
        match (self.stage, what) {
            (Stage::Ended(_), What::End) => Step::Forget,
            (Stage::Ended(_), _) => Step::Over,
            (_, What::Response(generation)) if generation != self.generation => Step::Drop,
            // It moves only when no request of the server is open: this one was answered before.
            (Stage::Moving(_), What::Response(_)) => Step::Drop,
            (Stage::Moving(_), _) => Step::Wait,
            _ if ground.reachable && !ground.left => {
                self.stage = Stage::Live;
                Step::Send
            }
            (_, What::Response(_)) => self.send_or(Step::Drop, ground),
            (_, What::End) => self.send_or(Step::Forget, ground),
            _ => self.depart(ground),
        }
    }

    /// Its release forgot it: it died in the middle, say. Nothing of it is under way there.
    pub(in crate::proxy) fn lose(&mut self, generation: u32) {
        if generation == self.generation && !matches!(self.stage, Stage::Ended(_)) {
            (self.lost, self.tasks) = (true, 0);
            self.asked.clear();
        }
    }

    /// Whether its release forgot it.
    pub(in crate::proxy) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The target opened the session.
    pub(in crate::proxy) fn moved(&mut self) {
        let Stage::Moving(to) = self.stage else { return };
        *self = Self::new(to, self.generation.wrapping_add(1));
    }

    /// The target did not open the session, and why.
    pub(in crate::proxy) fn refused(&mut self, refusal: Refusal, reachable: bool) {
        if let Stage::Moving(_) = self.stage {
            let over = refusal.is_final() && !reachable;
            self.stage = if over { Stage::Ended(refusal) } else { Stage::Pinned(refusal) };
        }
    }

    /// A request goes to its release; the generation that it belongs to.
    pub(in crate::proxy) fn begin(&mut self) -> u32 {
        self.open = self.open.saturating_add(1);
        self.generation
    }

    /// A request of this generation is over.
    pub(in crate::proxy) fn end(&mut self, generation: u32) {
        if generation == self.generation {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// The server asks the client something.
    pub(in crate::proxy) fn ask(&mut self, generation: u32, id: &str) {
        let known = self.asked.iter().any(|other| &**other == id);
        if generation == self.generation && !known && self.asked.len() < REMEMBERED_MAX {
            self.asked.push(id.into());
        }
    }

    /// The client answered, or the server, or the end of its call, took the question back.
    pub(in crate::proxy) fn settle(&mut self, generation: u32, id: &str) {
        if generation == self.generation {
            self.asked.retain(|other| &**other != id);
        }
    }

    /// A task began.
    pub(in crate::proxy) fn begin_task(&mut self, generation: u32) {
        if generation == self.generation {
            self.tasks = self.tasks.saturating_add(1);
        }
    }

    /// A task ended; told once or more often.
    pub(in crate::proxy) fn end_task(&mut self, generation: u32, id: &str) {
        let known = self.ended_tasks.iter().any(|other| &**other == id);
        if generation == self.generation && !known && self.tasks > 0 {
            if self.ended_tasks.len() == REMEMBERED_MAX {
                self.ended_tasks.remove(0);
            }
            self.ended_tasks.push(id.into());
            self.tasks -= 1;
        }
    }

    /// Whether a move now would lose nothing that is under way.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.open == 0 && self.asked.is_empty() && self.tasks == 0
    }

    /// What keeps it at a release that is being left, if nobody asks it to move.
    pub(in crate::proxy) fn holds(&self, bound: Option<Refusal>) -> Option<Refusal> {
        match self.stage {
            Stage::Pinned(
                refusal @ (Refusal::Protocol
                | Refusal::Capability
                | Refusal::HardState
                | Refusal::Unknown
                | Refusal::Credentials
                | Refusal::TargetFailed),
            ) => Some(refusal),
            Stage::Ended(_) => None,
            _ if bound.is_some() => bound,
            _ if self.tasks > 0 => Some(Refusal::LiveTask),
            _ if !self.asked.is_empty() => Some(Refusal::PendingRequest),
            _ => None,
        }
    }

    /// Its release is cut. `Some`: it can not go on, and ends.
    pub(in crate::proxy) fn cut(&mut self, bound: Option<Refusal>) -> Option<Refusal> {
        let held = self.holds(bound)?;
        // What waited for the client is answered by the cut; what was refused is tried again.
        let over = held.is_final() || held == Refusal::LiveTask;
        if over && !matches!(self.stage, Stage::Moving(_)) {
            self.stage = Stage::Ended(held);
            return Some(held);
        }
        None
    }

    fn depart(&mut self, ground: Ground) -> Step {
        // One that forgot it can open it anew.
        let other = |active: &Number| *active != self.release || self.lost;
        let Some(active) = ground.active.filter(other) else {
            return self.send_or(Step::NoRelease, ground);
        };
        let fixed = match self.stage {
            Stage::Pinned(refusal) if refusal.is_final() => Some(refusal),
            _ => ground.bound,
        };
        if let Some(refusal) = fixed.or((self.tasks > 0).then_some(Refusal::LiveTask)) {
            self.stage =
                if ground.reachable { Stage::Pinned(refusal) } else { Stage::Ended(refusal) };
            return self.send_or(Step::Over, ground);
        }
        // A release that can not be asked any more holds nothing open, whatever was counted.
        if ground.reachable && !self.is_idle() {
            if !self.asked.is_empty() {
                self.stage = Stage::Pinned(Refusal::PendingRequest);
            }
            return Step::Send;
        }
        if ground.resting {
            return self.send_or(Step::NoRelease, ground);
        }
        self.stage = Stage::Moving(active);
        Step::Move(active)
    }

    fn send_or(&self, other: Step, ground: Ground) -> Step {
        if ground.reachable { Step::Send } else { other }
    }
}

#[cfg(test)]
mod tests;
