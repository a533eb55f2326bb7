//! The releases that run: for each one a task that keeps its process alive, and one that probes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::act::{Process, Spec, Unit};
use crate::artifact::{Doubt, Seal};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::config::{Address, Runtime, Service};
use crate::model::{Event, Number, Readiness, Release, Seen, Signal, Slot, Ticket};
use crate::proxy::Proxy;
use crate::signal::{Follower, Prober, Scraper};

use super::input::Input;
use super::leftovers::Place;
use super::questions::{become_ready, doubt, probe, scrape, unfit};
use super::units::{UnitLife, Wish};

/// Wait before a process that died is started again: at once, then doubling to the maximum.
pub(super) const RESTART_FIRST: Duration = Duration::from_millis(250);
pub(super) const RESTART_MAX: Duration = Duration::from_secs(10);
/// How long a rollback waits for the full share of processor and disk.
const SHARE_MAX: Duration = Duration::from_millis(250);
/// A process that lived this long starts again at once.
pub(super) const LIVED: Duration = Duration::from_secs(60);

/// What runs for one service.
#[derive(Debug)]
pub(super) struct Crew {
    state_dir: PathBuf,
    bus: Bus,
    clock: Clock,
    outbox: mpsc::Sender<Input>,
    hurry: watch::Sender<bool>,
    hands: BTreeMap<Number, Hand>,
    leaving: BTreeMap<Slot, JoinHandle<()>>,
    question: Option<JoinHandle<()>>,
}

/// What the keeper of a unit is told, and whether the unit has its full share.
#[derive(Debug)]
struct Reins {
    wish: watch::Sender<Wish>,
    full: watch::Receiver<bool>,
}

/// The tasks of one release.
#[derive(Debug)]
struct Hand {
    stop: CancellationToken,
    /// What keeps its process or its unit.
    life: Option<JoinHandle<()>>,
    unit: Option<Reins>,
    prober: JoinHandle<()>,
    scraper: Option<JoinHandle<()>>,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(
        state_dir: PathBuf,
        bus: Bus,
        clock: Clock,
        outbox: mpsc::Sender<Input>,
    ) -> Self {
        let (hurry, _) = watch::channel(false);
        let (hands, leaving) = (BTreeMap::new(), BTreeMap::new());
        Self { state_dir, bus, clock, outbox, hurry, hands, leaving, question: None }
    }

    /// Keeps a release running and probed, from now on. A `fresh` one is not taken to run already.
    pub(super) fn keep(
        &mut self,
        service: &Arc<Service>,
        (release, address): (&Release, &Address),
        seal: Option<Seal>,
        fresh: bool,
    ) {
        if self.hands.contains_key(&release.number) {
            return;
        }
        let stop = CancellationToken::new();
        let (life, unit) = self.live(service, (release, address), seal, fresh, stop.clone());
        let prober = Prober::new(&service.probe, &service.path, address, release);
        let pace = service.probe.every;
        let hurry = self.hurry.subscribe();
        let outbox = self.outbox.clone();
        let prober = probe(prober, release.number, pace, hurry, outbox);
        let prober = tokio::spawn(prober);
        let scraper = service.scrape.as_ref().map(|it| {
            let scraper = Scraper::new(it, address, release);
            let outbox = self.outbox.clone();
            tokio::spawn(scrape(scraper, release.number, it.every, self.clock, outbox))
        });
        let hand = Hand { stop, life, unit, prober, scraper };
        self.hands.insert(release.number, hand);
    }

    /// Starts what keeps a release running.
    fn live(
        &mut self,
        service: &Arc<Service>,
        (release, address): (&Release, &Address),
        seal: Option<Seal>,
        fresh: bool,
        stop: CancellationToken,
    ) -> (Option<JoinHandle<()>>, Option<Reins>) {
        let outbox = self.outbox.clone();
        match &service.runtime {
            Runtime::External => (None, None),
            Runtime::Command(command) => {
                let spec = Spec {
                    command: command.clone(),
                    release: release.clone(),
                    address: address.clone(),
                    service: service.name.clone(),
                    state_dir: self.state_dir.clone(),
                };
                let before = self.leaving.remove(&release.slot);
                (Some(tokio::spawn(live(spec, seal, before, stop, outbox))), None)
            }
            Runtime::Systemd(template) => {
                let place = (service.name.as_str(), self.state_dir.as_path());
                let start = service.policy.start;
                let unit = Unit::new(self.bus.clone(), template, release, address, place, start);
                let follower = Follower::new(self.bus.clone(), unit.name());
                let (wish, wishes) = watch::channel(Wish::default());
                let (share, full) = watch::channel(true);
                let release_number = release.number;
                let life = UnitLife {
                    unit,
                    follower,
                    seal,
                    release: release_number,
                    fresh,
                    stop,
                    wish: wishes,
                    full: share,
                    outbox,
                };
                let before = self.leaving.remove(&release.slot);
                (Some(tokio::spawn(life.live(before))), Some(Reins { wish, full }))
            }
        }
    }

    /// Tells the keeper of a release's unit what is wanted of it.
    pub(super) fn wish(&self, release: Number, wish: Wish) {
        let told = self.hands.get(&release).and_then(|hand| hand.unit.as_ref());
        if let Some(Reins { wish: told, .. }) = told {
            told.send_if_modified(|now| std::mem::replace(now, wish) != wish);
        }
    }

    /// Probes faster, or as usual again.
    pub(super) fn hurry(&self, fast: bool) {
        self.hurry.send_if_modified(|now| std::mem::replace(now, fast) != fast);
    }

    /// Asks a release until it answers several times in a row, then tells what it offers.
    pub(super) fn prove(
        &mut self,
        ticket: Ticket,
        service: &Arc<Service>,
        new: (&Release, &Address),
        active: Option<(&Release, &Address)>,
        proxy: Proxy,
    ) {
        let prober =
            |(release, address)| Prober::new(&service.probe, &service.path, address, release);
        let (asked, other) = (prober(new), active.map(prober));
        let in_use = active.map(|(active, _)| active.number);
        let (service, outbox) = (Arc::clone(service), self.outbox.clone());
        self.ask(async move {
            let patience = service.policy.start;
            let proven = become_ready(asked, other, &service);
            // Whoever waits for the answer has given up by then.
            let Ok(readiness) = tokio::time::timeout(patience, proven).await else { return };
            let in_use = in_use.map(|number| proxy.protocols(number)).unwrap_or_default();
            let readiness = Box::new(Readiness { in_use, ..readiness });
            let event = Event::Ready(ticket, readiness);
            let _ = outbox.send(Input::Event(event)).await;
        });
    }

    /// Asks a release once, now, and looks whether its artifact is still what was deployed. Its unit
    /// has its full share by then, if systemd gives it in time.
    pub(super) fn probe(
        &mut self,
        ticket: Ticket,
        service: &Service,
        (release, at): (&Release, &Address),
        seal: Option<Seal>,
    ) {
        let mut prober = Prober::new(&service.probe, &service.path, at, release);
        let outbox = self.outbox.clone();
        let number = release.number;
        let unit = self.hands.get(&number).and_then(|hand| hand.unit.as_ref());
        let share = unit.map(|reins| reins.full.clone());
        self.ask(async move {
            let (reply, doubt, ()) = tokio::join!(prober.ask(), doubt(seal), full(share));
            if let Some(doubt) = doubt {
                let news = match &doubt {
                    Doubt::Unreadable { .. } => Input::Doubted(number, doubt),
                    Doubt::Changed { .. } | Doubt::Gone { .. } => {
                        Input::Event(Event::Spoiled(ticket, doubt.to_string()))
                    }
                };
                let _ = outbox.send(news).await;
            }
            let _ = outbox.send(Input::Event(Event::Probed(ticket, reply))).await;
            prober.close().await;
        });
    }

    /// One question at a time: a new one makes the answer to the last worthless.
    fn ask(&mut self, question: impl Future<Output = ()> + Send + 'static) {
        if let Some(last) = self.question.replace(tokio::spawn(question)) {
            last.abort();
        }
    }

    /// Ends what is left on a release, then stops it. A later one in its slot waits for that.
    pub(super) fn retire(&mut self, service: &Arc<Service>, release: &Release, proxy: Proxy) {
        let hand = self.hands.remove(&release.number);
        let number = release.number;
        let place = Place { bus: &self.bus, state_dir: &self.state_dir, service };
        // Nobody of ours keeps it: it may run all the same, from before a crash.
        let leftovers = hand.is_none().then(|| place.stop(release));
        let leave = tokio::spawn(async move {
            proxy.remove(number).await;
            if let Some(hand) = hand {
                hand.stop().await;
            }
            if let Some(leftovers) = leftovers {
                leftovers.await;
            }
        });
        self.leaving.insert(release.slot.clone(), leave);
    }

    /// Lets a release go whose slot is another one's by now: what runs there is not stopped, and
    /// what is open there may finish.
    pub(super) fn let_go(&mut self, service: &Service, release: &Release, proxy: Proxy) {
        if let Some(hand) = self.hands.remove(&release.number) {
            hand.let_go();
        }
        let (number, patience) = (release.number, service.policy.drain);
        tokio::spawn(async move {
            proxy.drain(number, patience).await;
            proxy.remove(number).await;
        });
    }

    /// Stops processes and units of ours that belong to no release in `needed`. What needs their
    /// slots waits for that, the traffic does not.
    pub(super) fn tidy(&mut self, service: &Arc<Service>, needed: &[&Release]) {
        let place = Place { bus: &self.bus, state_dir: &self.state_dir, service };
        self.leaving.extend(place.tidy(needed));
    }

    /// Lets go of everything, and leaves it running: another daemon adopts it.
    pub(super) async fn let_all_go(&mut self) {
        let mut tasks: Vec<_> = std::mem::take(&mut self.leaving).into_values().collect();
        tasks.extend(self.question.take());
        for Hand { life, prober, scraper, .. } in std::mem::take(&mut self.hands).into_values() {
            tasks.extend([Some(prober), scraper, life].into_iter().flatten());
        }
        tasks.iter().for_each(JoinHandle::abort);
        // What is just being started is there before it is let go of.
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Stops everything, but for units: systemd runs those, also without a daemon.
    pub(super) async fn stop(&mut self) {
        if let Some(question) = self.question.take() {
            question.abort();
        }
        let (units, processes): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.hands).into_values().partition(|hand| hand.unit.is_some());
        units.into_iter().for_each(Hand::let_go);
        processes.iter().for_each(|hand| hand.stop.cancel());
        for hand in processes {
            hand.stop().await;
        }
        for leave in std::mem::take(&mut self.leaving).into_values() {
            let _ = leave.await;
        }
    }
}

impl Hand {
    async fn stop(self) {
        self.stop.cancel();
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        if let Some(life) = self.life {
            let _ = life.await;
        }
    }

    /// Ends every task; what runs, goes on.
    fn let_go(self) {
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        self.life.iter().for_each(JoinHandle::abort);
    }
}

/// Waits until a unit that rested has its full share again.
async fn full(share: Option<watch::Receiver<bool>>) {
    if let Some(mut share) = share {
        // With less it still answers; that is better than what is left.
        let _ = tokio::time::timeout(SHARE_MAX, share.wait_for(|full| *full)).await;
    }
}

/// Keeps one process alive until told to stop.
async fn live(
    spec: Spec,
    seal: Option<Seal>,
    before: Option<JoinHandle<()>>,
    stop: CancellationToken,
    outbox: mpsc::Sender<Input>,
) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let mut wait = Duration::ZERO;
    let mut adopted = Process::adopt(&spec);
    while !stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        let begun = match adopted.take() {
            Some(process) => Ok(process),
            None => unfit(seal.as_ref()).await.and_then(|()| Process::start(&spec)),
        };
        let how = match begun {
            Err(why) => format!("it was not started: {why}"),
            Ok(mut process) => {
                let ended = tokio::select! {
                    how = process.exited() => Some(how),
                    () = stop.cancelled() => None,
                };
                // Also after its end: helpers that it left behind may hold the port.
                if let Err(why) = process.stop().await {
                    tracing::error!(release = %spec.release, "failed to stop: {why}");
                }
                let Some(how) = ended else { return };
                format!("its process ended: {how} (output: {})", spec.output_path().display())
            }
        };
        wait = if began.elapsed() >= LIVED { Duration::ZERO } else { wait };
        let signal = Signal { release: spec.release.number, seen: Seen::Exited(how) };
        let _ = outbox.send(Input::Signal(signal)).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            () = stop.cancelled() => (),
        }
        wait = (wait * 2).clamp(RESTART_FIRST, RESTART_MAX);
    }
}
