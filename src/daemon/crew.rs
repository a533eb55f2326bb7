//! The releases that run: for each one a task that keeps its process alive, and one that probes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::act::{self, Orphan, Process, Spec};
use crate::clock::Clock;
use crate::config::{Address, ProbeKind, Runtime, Service};
use crate::model::{Event, Number, Readiness, Release, Reply, Seen, Signal, Slot, Ticket};
use crate::proxy::Proxy;
use crate::signal::{Prober, Scraper};

use super::input::Input;

/// Wait before a process that died is started again: at once, then doubling to the maximum.
const RESTART_FIRST: Duration = Duration::from_millis(250);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A process that lived this long starts again at once.
const LIVED: Duration = Duration::from_secs(60);
/// Between probes while something is wrong, and while a new release becomes ready.
const PROBE_FAST: Duration = Duration::from_millis(100);

/// What runs for one service.
#[derive(Debug)]
pub(super) struct Crew {
    state_dir: PathBuf,
    clock: Clock,
    outbox: mpsc::Sender<Input>,
    hurry: watch::Sender<bool>,
    hands: BTreeMap<Number, Hand>,
    leaving: BTreeMap<Slot, JoinHandle<()>>,
    question: Option<JoinHandle<()>>,
}

/// The tasks of one release.
#[derive(Debug)]
struct Hand {
    stop: CancellationToken,
    process: Option<JoinHandle<()>>,
    prober: JoinHandle<()>,
    scraper: Option<JoinHandle<()>>,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(state_dir: PathBuf, clock: Clock, outbox: mpsc::Sender<Input>) -> Self {
        let (hurry, _) = watch::channel(false);
        let (hands, leaving) = (BTreeMap::new(), BTreeMap::new());
        Self { state_dir, clock, outbox, hurry, hands, leaving, question: None }
    }

    /// Keeps a release running and probed, from now on.
    pub(super) fn keep(&mut self, service: &Arc<Service>, release: &Release, address: &Address) {
        if self.hands.contains_key(&release.number) {
            return;
        }
        let stop = CancellationToken::new();
        let process = match &service.runtime {
            Runtime::External => None,
            Runtime::Command(command) => {
                let spec = Spec {
                    command: command.clone(),
                    release: release.clone(),
                    address: address.clone(),
                    service: service.name.clone(),
                    state_dir: self.state_dir.clone(),
                };
                let before = self.leaving.remove(&release.slot);
                let life = live(spec, before, stop.clone(), self.outbox.clone());
                Some(tokio::spawn(life))
            }
        };
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
        let hand = Hand { stop, process, prober, scraper };
        self.hands.insert(release.number, hand);
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

    /// Asks a release once, now.
    pub(super) fn probe(
        &mut self,
        ticket: Ticket,
        service: &Service,
        release: &Release,
        at: &Address,
    ) {
        let mut prober = Prober::new(&service.probe, &service.path, at, release);
        let outbox = self.outbox.clone();
        self.ask(async move {
            let reply = prober.ask().await;
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
        let (number, slot) = (release.number, release.slot.clone());
        let (state_dir, service) = (self.state_dir.clone(), Arc::clone(service));
        let leave = tokio::spawn(async move {
            proxy.remove(number).await;
            match hand {
                Some(hand) => hand.stop().await,
                None => {
                    let left = orphans(&state_dir, &service, |known| known == number);
                    stop_orphans(left, service).await;
                }
            }
        });
        self.leaving.insert(slot, leave);
    }

    /// Stops processes of ours that belong to no release in `needed`. What needs their slots waits
    /// for that, the traffic does not.
    pub(super) fn tidy(&mut self, service: &Arc<Service>, needed: &[Number]) {
        let mut slots: BTreeMap<Slot, Vec<Orphan>> = BTreeMap::new();
        for orphan in orphans(&self.state_dir, service, |number| !needed.contains(&number)) {
            slots.entry(orphan.slot.clone()).or_default().push(orphan);
        }
        for (slot, orphans) in slots {
            let leave = tokio::spawn(stop_orphans(orphans, Arc::clone(service)));
            self.leaving.insert(slot, leave);
        }
    }

    /// Lets go of everything, and leaves it running: another daemon adopts it.
    pub(super) async fn let_go(&mut self) {
        let mut tasks: Vec<_> = std::mem::take(&mut self.leaving).into_values().collect();
        tasks.extend(self.question.take());
        for Hand { process, prober, scraper, .. } in std::mem::take(&mut self.hands).into_values() {
            tasks.extend([Some(prober), scraper, process].into_iter().flatten());
        }
        tasks.iter().for_each(JoinHandle::abort);
        // What is just being started is there before it is let go of.
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Stops everything.
    pub(super) async fn stop(&mut self) {
        if let Some(question) = self.question.take() {
            question.abort();
        }
        for hand in self.hands.values() {
            hand.stop.cancel();
        }
        for hand in std::mem::take(&mut self.hands).into_values() {
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
        if let Some(process) = self.process {
            let _ = process.await;
        }
    }
}

/// Keeps one process alive until told to stop.
async fn live(
    spec: Spec,
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
        let how = match adopted.take().map_or_else(|| Process::start(&spec), Ok) {
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

/// Probes one release for ever; faster while something is wrong.
async fn probe(
    mut prober: Prober,
    release: Number,
    pace: Duration,
    mut hurry: watch::Receiver<bool>,
    outbox: mpsc::Sender<Input>,
) {
    let mut last_ok = false;
    loop {
        let fast = *hurry.borrow_and_update() || !last_ok;
        let wait = if fast { PROBE_FAST.min(pace) } else { pace };
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            _ = hurry.changed(), if !fast => (),
        }
        let reply = prober.ask().await;
        last_ok = reply.is_ok();
        if outbox.send(Input::Signal(Signal { release, seen: Seen::Probe(reply) })).await.is_err() {
            return;
        }
    }
}

/// Reads the counters of one release for ever. A slow answer moves the next one, so that there is
/// never more than one.
async fn scrape(
    scraper: Scraper,
    release: Number,
    every: Duration,
    clock: Clock,
    outbox: mpsc::Sender<Input>,
) {
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let seen = Seen::Scraped(scraper.ask(clock.now()).await);
        if outbox.send(Input::Signal(Signal { release, seen })).await.is_err() {
            return;
        }
    }
}

/// Asks until there were enough good answers in a row, and a server that speaks MCP has told what
/// it offers. Whoever waits sets the limit in time.
async fn become_ready(mut new: Prober, active: Option<Prober>, service: &Service) -> Readiness {
    let mut good = 0;
    while good < service.probe.ready {
        good = if new.ask().await == Reply::Ok { good + 1 } else { 0 };
        if good < service.probe.ready {
            tokio::time::sleep(PROBE_FAST).await;
        }
    }
    let mut contract = new.contract().await;
    while contract.is_none() && service.probe.kind == ProbeKind::Mcp {
        tokio::time::sleep(PROBE_FAST).await;
        contract = new.contract().await;
    }
    new.close().await;
    let active = match active {
        Some(mut active) => active.contract().await,
        None => None,
    };
    Readiness { new: contract, active, ..Readiness::default() }
}

fn orphans(
    state_dir: &std::path::Path,
    service: &Service,
    unwanted: impl Fn(Number) -> bool,
) -> Vec<Orphan> {
    let found = match service.runtime {
        Runtime::Command(_) => act::orphans(state_dir, &service.name),
        Runtime::External => Vec::new(),
    };
    found.into_iter().filter(|orphan| unwanted(orphan.number)).collect()
}

async fn stop_orphans(orphans: Vec<Orphan>, service: Arc<Service>) {
    let Runtime::Command(command) = &service.runtime else { return };
    for orphan in orphans {
        let (slot, service) = (&orphan.slot, &service.name);
        tracing::warn!(service, %slot, "stops a process that is left over");
        if let Err(why) = orphan.stop(command.stop).await {
            tracing::error!(service, "failed to stop: {why}");
        }
    }
}
