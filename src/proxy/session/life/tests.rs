use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const OLD: Number = Number(2);
const NEW: Number = Number(1);

/// The world around one session: a client, two releases, and an operator who goes back.
#[derive(Default)]
struct World {
    life: Option<Life>,
    left: bool,
    cut: bool,
    bound: Option<Refusal>,
    resting: bool,
    /// Requests in the order in which they came.
    requests: Vec<Sent>,
    /// Those that wait for the end of a move.
    waiting: VecDeque<usize>,
    /// The one that waits for its own move.
    mover: Option<usize>,
}

#[derive(Default)]
struct Sent {
    safe: bool,
    /// Releases that it reached.
    reached: Vec<Number>,
    /// Where it is open, and in which generation.
    open: Option<(Number, u32)>,
    answers: u32,
    gave_up: bool,
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Arrives { safe: bool },
    Notifies,
    Answered(usize),
    ServerAsks,
    ClientAnswers,
    TaskBegins,
    TaskEnds,
    RollbackOrdered,
    Cut,
    MoveDone,
    MoveRefused(Refusal),
    WaiterGivesUp,
    RestartsElsewhere,
    Rests(bool),
    Forgotten,
}

impl World {
    fn new(bound: Option<Refusal>) -> Self {
        Self { life: Some(Life::new(OLD, 0)), bound, ..Self::default() }
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().unwrap()
    }

    fn ground(&mut self) -> Ground {
        let (left, cut) = (self.left, self.cut);
        let at_old = self.life().release() == OLD;
        let active = Some(if left || cut { NEW } else { OLD });
        Ground {
            reachable: !at_old || !cut,
            left: at_old && left,
            active,
            bound: self.bound,
            resting: self.resting,
        }
    }

    fn arrive(&mut self, index: usize) {
        let ground = self.ground();
        match self.life().arrive(What::Request, ground) {
            Step::Send => self.send(index),
            Step::Move(to) => {
                assert!(to == NEW || self.life().is_lost());
                assert!(self.mover.replace(index).is_none(), "two moves at once");
                let here = |it: &Sent| it.open.is_some_and(|(release, _)| release == OLD);
                let busy = self.requests.iter().any(here);
                let reachable = ground.reachable && !self.life().is_lost();
                assert!(!reachable || !busy, "moved with something open");
                assert!(ground.left || self.life().is_lost(), "moved without need");
            }
            Step::Wait => self.waiting.push_back(index),
            Step::Over | Step::NoRelease => self.answer(index),
            step @ (Step::Drop | Step::Forget) => panic!("{step:?} for a request"),
        }
    }

    fn send(&mut self, index: usize) {
        let (release, generation) = (self.life().release(), self.life().begin());
        let request = &mut self.requests[index];
        assert!(request.safe || request.reached.is_empty(), "reached two releases");
        assert!(release != OLD || !self.cut, "sent to a release that is gone");
        request.reached.push(release);
        request.open = Some((release, generation));
    }

    fn answer(&mut self, index: usize) {
        let request = &mut self.requests[index];
        assert_eq!(request.answers, 0, "answered twice");
        request.answers = 1;
        if let Some((_, generation)) = request.open.take() {
            self.life().end(generation);
        }
    }

    /// The move is over: who caused it goes first, then who waited, in order.
    fn go_on(&mut self) {
        let mover = self.mover.take();
        let waited: Vec<_> = mover.into_iter().chain(std::mem::take(&mut self.waiting)).collect();
        waited.into_iter().for_each(|index| self.arrive(index));
    }

    fn refuse(&mut self, refusal: Refusal) {
        let reachable = self.ground().reachable && !self.life().is_lost();
        self.life().refused(refusal, reachable);
        let Some(index) = self.mover.take() else { return };
        // Asked once is enough: it goes on where it was, or is answered.
        if reachable {
            self.send(index)
        } else {
            self.answer(index)
        }
        self.go_on();
    }

    fn cut(&mut self) {
        (self.left, self.cut) = (true, true);
        let bound = self.bound;
        if self.life().release() == OLD {
            self.life().cut(bound);
        }
        for index in 0..self.requests.len() {
            let Some((OLD, generation)) = self.requests[index].open else { continue };
            self.life().end(generation);
            self.requests[index].open = None;
            match fate(true, self.requests[index].safe, false) {
                Fate::Replay => self.arrive(index),
                Fate::Answer => self.answer(index),
            }
        }
    }

    /// The release died and runs again: what was open there broke off.
    fn forget(&mut self, generation: u32) {
        let release = self.life().release();
        self.life().lose(generation);
        for index in 0..self.requests.len() {
            if self.requests[index].open == Some((release, generation)) {
                self.answer(index);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let generation = self.life().generation();
        match happening {
            Happening::Arrives { safe } => {
                self.requests.push(Sent { safe, ..Sent::default() });
                self.arrive(self.requests.len() - 1);
            }
            Happening::Notifies => {
                let ground = self.ground();
                // A notification may move the session, too; it has no answer to wait for.
                if let Step::Move(_) = self.life().arrive(What::Notification, ground) {
                    self.life().moved();
                }
            }
            Happening::Answered(nth) => {
                let open: Vec<_> = (0..self.requests.len())
                    .filter(|at| self.requests[*at].open.is_some())
                    .collect();
                if let Some(index) = open.get(nth % open.len().max(1)) {
                    self.answer(*index);
                }
            }
            Happening::ServerAsks => self.life().ask(generation, "0"),
            Happening::ClientAnswers => {
                let ground = self.ground();
                if self.life().arrive(What::Response(generation), ground) == Step::Send {
                    self.life().settle(generation, "0");
                }
                // A late one, of before the last move, reaches nobody.
                if generation > 0 {
                    let late = self.life().arrive(What::Response(generation - 1), ground);
                    assert!(matches!(late, Step::Drop | Step::Over), "{late:?}");
                }
            }
            Happening::TaskBegins => self.life().begin_task(generation),
            Happening::TaskEnds => self.life().end_task(generation, "t"),
            Happening::Forgotten => self.forget(generation),
            Happening::Rests(resting) => self.resting = resting,
            Happening::RollbackOrdered => self.left = true,
            Happening::Cut => self.cut(),
            Happening::MoveDone if self.mover.is_some() => {
                self.life().moved();
                self.go_on();
            }
            Happening::MoveRefused(refusal) => self.refuse(refusal),
            Happening::WaiterGivesUp => {
                if let Some(index) = self.waiting.pop_back() {
                    self.requests[index].gave_up = true;
                    self.answer(index);
                }
            }
            Happening::RestartsElsewhere if self.mover.is_none() => {
                let (release, generation) = (self.life().release(), self.life().generation());
                if self.requests.iter().all(|it| it.open.is_none()) {
                    self.life = Some(Life::new(release, generation));
                }
            }
            Happening::MoveDone | Happening::RestartsElsewhere => (),
        }
    }

    /// Whatever is open comes to its end.
    fn finish(mut self) {
        for _ in 0..4 {
            self.happen(Happening::MoveDone);
            for _ in 0..self.requests.len() {
                self.happen(Happening::Answered(0));
            }
        }
        for (index, request) in self.requests.iter().enumerate() {
            assert_eq!(request.answers, 1, "request {index} was lost");
            assert!(request.safe || request.reached.len() <= 1, "{:?}", request.reached);
        }
        assert!(self.waiting.is_empty() && self.mover.is_none());
    }
}

fn refusals() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        Just(Refusal::Protocol),
        Just(Refusal::Capability),
        Just(Refusal::Credentials),
        Just(Refusal::TargetFailed),
    ]
}

fn happenings() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => any::<bool>().prop_map(|safe| Happening::Arrives { safe }),
        1 => Just(Happening::Notifies),
        6 => any::<usize>().prop_map(Happening::Answered),
        1 => Just(Happening::ServerAsks),
        1 => Just(Happening::ClientAnswers),
        1 => Just(Happening::TaskBegins),
        1 => Just(Happening::TaskEnds),
        1 => Just(Happening::RollbackOrdered),
        1 => Just(Happening::Cut),
        4 => Just(Happening::MoveDone),
        1 => refusals().prop_map(Happening::MoveRefused),
        1 => Just(Happening::WaiterGivesUp),
        1 => Just(Happening::RestartsElsewhere),
        1 => any::<bool>().prop_map(Happening::Rests),
        1 => Just(Happening::Forgotten),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// No request is lost, none is answered twice, none reaches two releases unless it is safe.
    #[test]
    fn every_interleaving_keeps_every_request(
        hard in proptest::bool::weighted(0.1),
        happenings in proptest::collection::vec(happenings(), 0..60),
    ) {
        let mut world = World::new(hard.then_some(Refusal::HardState));
        happenings.into_iter().for_each(|happening| world.happen(happening));
        world.finish();
    }
}

fn left() -> Ground {
    Ground { reachable: true, left: true, active: Some(NEW), bound: None, resting: false }
}

#[test]
fn an_idle_session_moves_at_its_next_request_and_a_busy_one_after_its_call() {
    let mut life = Life::new(OLD, 0);
    let generation = life.begin();
    assert_eq!(life.arrive(What::Request, left()), Step::Send);
    life.end(generation);
    assert_eq!(life.arrive(What::Request, left()), Step::Move(NEW));
    assert_eq!(life.arrive(What::Request, left()), Step::Wait);
    life.moved();
    assert_eq!((life.release(), life.generation()), (NEW, 1));
    let ground = Ground { left: false, ..left() };
    assert_eq!(life.arrive(What::Request, ground), Step::Send);
    // The call of the old generation may end late.
    life.begin();
    life.end(generation);
    assert!(!life.is_idle());
}

#[test]
fn what_the_server_asked_is_answered_before_the_move() {
    let mut life = Life::new(OLD, 0);
    life.ask(0, "7");
    assert_eq!(life.arrive(What::Request, left()), Step::Send);
    assert_eq!(life.stage(), Stage::Pinned(Refusal::PendingRequest));
    assert_eq!(life.arrive(What::Response(0), left()), Step::Send);
    assert_eq!(life.holds(None), Some(Refusal::PendingRequest));
    life.settle(0, "7");
    assert_eq!(life.holds(None), None);
    assert_eq!(life.arrive(What::Request, left()), Step::Move(NEW));
}

#[test]
fn a_cut_ends_what_can_not_go_on_and_nothing_else() {
    let gone = Ground { reachable: false, ..left() };
    for (refusal, stays) in [
        (Refusal::Protocol, false),
        (Refusal::Capability, false),
        (Refusal::Credentials, true),
        (Refusal::TargetFailed, true),
    ] {
        let mut life = Life::new(OLD, 0);
        assert_eq!(life.arrive(What::Request, left()), Step::Move(NEW));
        life.refused(refusal, true);
        assert_eq!(life.holds(None), Some(refusal));
        assert_eq!(life.cut(None), (!stays).then_some(refusal));
        let step = if stays { Step::Move(NEW) } else { Step::Over };
        assert_eq!(life.arrive(What::Request, gone), step, "{refusal:?}");
    }
    let mut life = Life::new(OLD, 0);
    assert_eq!(life.cut(Some(Refusal::HardState)), Some(Refusal::HardState));
    let mut life = Life::new(OLD, 0);
    life.begin_task(0);
    assert_eq!(life.arrive(What::Request, left()), Step::Send);
    assert_eq!(life.cut(None), Some(Refusal::LiveTask));
    let mut life = Life::new(OLD, 0);
    life.begin();
    life.ask(0, "1");
    assert_eq!(life.cut(None), None);
    assert_eq!(life.arrive(What::Response(0), gone), Step::Drop);
    assert_eq!(life.arrive(What::Request, gone), Step::Move(NEW));
}

#[test]
fn a_rollback_that_is_called_off_leaves_the_session_where_it_is() {
    let mut life = Life::new(OLD, 0);
    life.ask(0, "1");
    assert_eq!(life.arrive(What::Request, left()), Step::Send);
    let back = Ground { left: false, active: Some(OLD), ..left() };
    assert_eq!(life.arrive(What::Request, back), Step::Send);
    assert_eq!(life.stage(), Stage::Live);
}

#[test]
fn a_session_that_its_release_forgot_is_opened_anew_there() {
    let mut life = Life::new(OLD, 0);
    let here = Ground { left: false, active: Some(OLD), ..left() };
    life.begin_task(0);
    life.lose(0);
    assert_eq!(life.arrive(What::Request, here), Step::Move(OLD));
    life.moved();
    assert_eq!((life.release(), life.generation()), (OLD, 1));
    // Who heard of it late says nothing new.
    life.lose(0);
    assert_eq!(life.arrive(What::Request, here), Step::Send);
    life.lose(1);
    let hard = Ground { bound: Some(Refusal::HardState), ..here };
    assert_eq!(life.arrive(What::Request, hard), Step::Over);
}

#[test]
fn a_task_ends_once_however_often_it_is_told() {
    let mut life = Life::new(OLD, 0);
    life.begin_task(0);
    life.begin_task(0);
    life.end_task(0, "a");
    life.end_task(0, "a");
    assert!(!life.is_idle());
    life.end_task(0, "b");
    assert!(life.is_idle());
}

#[test]
fn only_what_changes_nothing_or_never_arrived_is_asked_again() {
    assert_eq!(fate(true, true, false), Fate::Replay);
    assert_eq!(fate(false, false, false), Fate::Replay);
    assert_eq!(fate(true, false, false), Fate::Answer);
    assert_eq!(fate(false, true, true), Fate::Answer);
}
