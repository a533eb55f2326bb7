//! A release that systemd runs: kept running, followed, and given its share of the host.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::{Run, Unit};
use crate::artifact::{Doubt, Seal};
use crate::bus::{State, Weights};
use crate::model::{Number, Seen, Signal};
use crate::signal::{Follower, Turn};

use super::crew::{LIVED, RESTART_FIRST, RESTART_MAX};
use super::input::Input;
use super::questions::unfit;

/// Wait before D-Bus is asked again that did not answer.
const BUS_WAIT: Duration = Duration::from_secs(1);

/// What a release wants of the one who keeps its unit. Changed while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// It serves nobody and may get little of processor and disk.
    pub waits: bool,
    /// A person holds the service: what a person stopped stays down.
    pub held: bool,
}

/// The keeper of one unit.
pub(super) struct UnitLife {
    pub unit: Unit,
    pub follower: Follower,
    pub seal: Option<Seal>,
    pub release: Number,
    /// It has to be started by us; what else runs in the slot has to go.
    pub fresh: bool,
    pub stop: CancellationToken,
    pub wish: watch::Receiver<Wish>,
    /// Tells whether the unit has its full share.
    pub full: watch::Sender<bool>,
    pub outbox: mpsc::Sender<Input>,
}

/// What is known of the unit, and what is to be done next.
#[derive(Debug, Default)]
struct Course {
    /// When to start it.
    due: Option<Instant>,
    wait: Duration,
    /// Since when it runs.
    up: Option<Instant>,
    /// A person stopped it.
    stopped: bool,
    /// The run that was last written down.
    run: String,
    /// The weights that it has by itself, and whether it has less now.
    weights: Option<(Weights, bool)>,
    mute: bool,
}

impl UnitLife {
    /// Keeps the unit running until told to stop; then stops it. To leave it running, the task is
    /// aborted.
    pub(super) async fn live(mut self, before: Option<JoinHandle<()>>) {
        if let Some(before) = before {
            let _ = before.await;
        }
        let mut course = Course::default();
        self.begin(&mut course).await;
        while !self.stop.is_cancelled() {
            let due = course.due;
            let start = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => (),
                () = start => self.start(&mut course).await,
                changed = self.wish.changed() => match changed {
                    Ok(()) => self.wished(&mut course).await,
                    Err(_) => return,
                },
                news = self.follower.next() => match news {
                    Ok((state, turns)) => self.hear(&mut course, &state, turns).await,
                    Err(why) => self.deaf(&mut course, &why).await,
                },
            }
        }
        if let Err(why) = self.unit.stop().await {
            tracing::error!(unit = self.unit.name(), "{why}");
        }
    }

    /// Finds out what runs, and starts what has to run.
    async fn begin(&mut self, course: &mut Course) {
        let state = loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                news = self.follower.next() => match news {
                    Ok((state, _)) => break state,
                    Err(why) if self.fresh => {
                        self.died(format!("it was not started: {why}")).await;
                        self.pause().await;
                    }
                    Err(why) => self.deaf(course, &why).await,
                },
            }
        };
        let run = self.unit.knows(&state);
        if !state.is_up() || self.fresh && run != Run::Ours {
            if state.is_up() {
                let unit = self.unit.name();
                tracing::warn!(unit, "stops what runs there: it is not the release");
                self.say(self.unit.stop().await);
            }
            course.due = Some(Instant::now());
            return;
        }
        course.up = Some(Instant::now());
        self.fresh = false;
        if run == Run::Strange {
            self.started(&state, "was started by somebody else while nobody watched").await;
        }
        self.unit.own(&state);
        course.run = state.invocation.clone();
        self.weigh(course, &state).await;
    }

    /// Somebody else started it: the same program, or another one?
    async fn started(&self, state: &State, how: &str) {
        let changed = match (self.unit.changed(state), &self.seal) {
            (None, Some(seal)) => match seal.check().await {
                Err(doubt @ Doubt::Changed { .. }) => Some(doubt.to_string()),
                _ => None,
            },
            (changed, _) => changed,
        };
        match changed {
            Some(changed) => self.found(changed).await,
            None => self.tell(format!("{} {how}", self.unit.name())).await,
        }
    }

    async fn start(&mut self, course: &mut Course) {
        course.due = None;
        if course.stopped && self.wish.borrow().held {
            return;
        }
        course.stopped = false;
        let started = tokio::select! {
            started = self.try_start() => started,
            () = self.stop.cancelled() => return,
        };
        match started {
            Ok((state, changed)) => {
                course.run.clone_from(&state.invocation);
                course.up = Some(Instant::now());
                self.fresh = false;
                self.follower.knows(state.clone());
                self.weigh(course, &state).await;
                if let Some(changed) = changed {
                    self.found(changed).await;
                }
                // It may have died in between: nobody else tells.
                if !state.is_up() {
                    self.died(self.follower.ended(&state)).await;
                    course.again();
                }
            }
            Err(why) => {
                self.died(format!("it was not started: {why}")).await;
                course.again();
            }
        }
    }

    async fn try_start(&self) -> Result<(State, Option<String>), String> {
        unfit(self.seal.as_ref()).await?;
        self.unit.start().await
    }

    async fn hear(&mut self, course: &mut Course, state: &State, turns: Vec<Turn>) {
        course.mute = false;
        for turn in turns {
            match turn {
                Turn::Died(how) => {
                    self.died(how).await;
                }
                Turn::Stopped => {
                    course.stopped = true;
                    let next = match self.wish.borrow().held {
                        true => "the service is held, so it stays down",
                        false => "it is needed, and is started again; a hold keeps it down",
                    };
                    let name = self.unit.name();
                    self.tell(format!("{name} was stopped by somebody else: {next}")).await;
                }
                Turn::Started => {
                    course.stopped = false;
                    course.up = Some(Instant::now());
                    self.started(state, "was started again by somebody else").await;
                }
            }
        }
        if state.is_up() {
            course.due = None;
            if course.run != state.invocation {
                course.run.clone_from(&state.invocation);
                self.unit.own(state);
            }
            self.weigh(course, state).await;
        } else if state.is_down() && course.due.is_none() && !(course.stopped && self.held()) {
            course.again();
        }
    }

    async fn wished(&mut self, course: &mut Course) {
        if course.stopped && !self.held() && course.due.is_none() {
            course.due = Some(Instant::now());
        }
        let waits = self.wish.borrow().waits;
        if let Some((own, low)) = &mut course.weights
            && *low != waits
        {
            *low = waits;
            let own = *own;
            self.say(self.unit.weigh(waits, own).await);
            self.full.send_replace(!waits);
        }
    }

    /// The first time that it is seen to run: what it has by itself, and what it may have now.
    async fn weigh(&mut self, course: &mut Course, state: &State) {
        if course.weights.is_some() {
            return;
        }
        let (own, waits) = (self.unit.own_weights(state), self.wish.borrow().waits);
        course.weights = Some((own, waits));
        if waits || state.weights != own {
            self.say(self.unit.weigh(waits, own).await);
        }
        self.full.send_replace(!waits);
    }

    /// D-Bus does not answer. The release may run all the same: its probes tell.
    async fn deaf(&mut self, course: &mut Course, why: &str) {
        if !std::mem::replace(&mut course.mute, true) {
            tracing::error!(unit = self.unit.name(), "the unit is not followed: {why}");
        }
        self.pause().await;
    }

    async fn pause(&self) {
        tokio::select! {
            () = self.stop.cancelled() => (),
            () = tokio::time::sleep(BUS_WAIT) => (),
        }
    }

    fn held(&self) -> bool {
        self.wish.borrow().held
    }

    fn say(&self, done: Result<(), String>) {
        if let Err(why) = done {
            tracing::warn!(unit = self.unit.name(), "{why}");
        }
    }

    async fn died(&self, how: String) {
        let signal = Signal { release: self.release, seen: Seen::Exited(how) };
        let _ = self.outbox.send(Input::Signal(signal)).await;
    }

    async fn found(&self, changed: String) {
        let _ = self.outbox.send(Input::Found(self.release, changed)).await;
    }

    async fn tell(&self, text: String) {
        let _ = self.outbox.send(Input::Told(self.release, text)).await;
    }
}

impl Course {
    /// Plans the next start: at once, then after ever longer waits.
    fn again(&mut self) {
        let lived = self.up.take().is_some_and(|up| LIVED <= up.elapsed());
        let wait = if lived { Duration::ZERO } else { self.wait };
        self.due = Some(Instant::now() + wait);
        self.wait = (wait * 2).clamp(RESTART_FIRST, RESTART_MAX);
    }
}
