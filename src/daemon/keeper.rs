//! One service: signals -> judge -> decide -> record -> act, in one loop.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config::{Runtime, Service};
use crate::decide::{Phase, Watch};
use crate::judge::{BLOCK, BLOCK_MS};
use crate::model::{
    Decision, Effect, Entry, Event, Fact, Load, Moment, Number, Reply, Seen, Signal,
};
use crate::proxy::Proxy;
use crate::record::{Timeline, Torn};

use super::crew::Crew;
use super::gauge::Gauge;
use super::input::{Begin, Ending, Input};
use super::ledger::Ledger;
use super::pulse::Pulse;
use super::seals::Seals;
use super::shadows::Shadows;
use super::trials::Trials;
use super::units::Wish;
use super::uses::{LOOK_BLOCKS, Uses};

/// How long requests wait, after the daemon started, for a release that is started with it.
const START_AWAITED: Duration = Duration::from_secs(5);
/// How often it is looked whether the warm release serves anybody, in blocks.
const UNITS_BLOCKS: u64 = 4;
/// How often silent sessions are looked for, in blocks.
const SWEEP_BLOCKS: u64 = 120;

/// What keeps one service.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) service: Arc<Service>,
    pub(super) clock: Clock,
    pub(super) watch: Watch,
    pub(super) proxy: Proxy,
    pub(super) trials: Trials,
    pub(super) gauges: BTreeMap<Number, Gauge>,
    pub(super) probes: BTreeMap<Number, Reply>,
    pub(super) trouble: Option<String>,
    pub(super) ledger: Ledger,
    timeline: Timeline,
    pub(super) crew: Crew,
    pub(super) shadows: Shadows,
    pub(super) seals: Seals,
    uses: Uses,
    pub(super) deaths: BTreeMap<Number, u32>,
    /// What releases call themselves.
    pub(super) names: BTreeMap<Number, String>,
    pub(super) outbox: mpsc::Sender<Input>,
    entries: broadcast::Sender<Arc<Entry>>,
    /// Events that effects led to at once.
    pub(super) queue: VecDeque<Event>,
    ticks: u64,
    pulse: Pulse,
}

impl Keeper {
    /// A keeper for a service whose timeline was read; nothing happens before [`Self::run`].
    #[expect(clippy::too_many_arguments, reason = "it is put together once, from distinct parts")]
    pub(super) fn new(
        service: Arc<Service>,
        clock: Clock,
        watch: Watch,
        timeline: Timeline,
        proxy: Proxy,
        (crew, seals): (Crew, Seals),
        outbox: mpsc::Sender<Input>,
        entries: broadcast::Sender<Arc<Entry>>,
        dir: PathBuf,
    ) -> Self {
        Self {
            service,
            clock,
            watch,
            proxy,
            trials: Trials::new(dir),
            gauges: BTreeMap::new(),
            probes: BTreeMap::new(),
            trouble: None,
            ledger: Ledger::new(),
            timeline,
            crew,
            shadows: Shadows::default(),
            seals,
            uses: Uses::default(),
            deaths: BTreeMap::new(),
            names: BTreeMap::new(),
            outbox,
            entries,
            queue: VecDeque::new(),
            ticks: 0,
            pulse: Pulse::default(),
        }
    }

    /// What shows that its loop goes round.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The loop. Ends when told to.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input>, begin: Begin) {
        self.take_up(&begin);
        // Not before its route is known: who waits in the backlog would be told that there is none.
        self.proxy.open();
        let mut blocks = tokio::time::interval(BLOCK);
        blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = blocks.tick() => self.block(),
                input = inbox.recv() => match input {
                    Some(Input::Stop(ending, done)) => {
                        self.end(ending).await;
                        let _ = done.send(());
                        return;
                    }
                    Some(Input::HandOver(to, done)) => {
                        self.let_go(&to).await;
                        // All files are closed before anybody is told.
                        drop(self);
                        let _ = done.send(());
                        return;
                    }
                    Some(input) => self.take(input),
                    None => return,
                },
            }
            while let Some(event) = self.queue.pop_front() {
                self.happen(&event);
            }
        }
    }

    /// Lets everybody go, as far as there is time for it.
    async fn end(&mut self, ending: Ending) {
        if ending.gently {
            self.proxy.leave(self.service.policy.drain, ending.again).await;
        }
        self.proxy.stop().await;
        if !ending.again {
            self.crew.stop().await;
        }
    }

    /// Goes on where the timeline ends.
    fn take_up(&mut self, Begin { who, torn }: &Begin) {
        self.crew.tidy(&self.service, &self.watch.phase().needed());
        self.learn_again();
        if *self.watch.phase() == Phase::Empty && *torn == Torn(0) {
            return;
        }
        let restored = self.watch.restored_by(who, self.clock.now(), torn.0);
        if self.commit(restored).is_err() {
            // The disk is full, say. Traffic goes where it went; nothing new is decided.
            let keep = |effect: &Effect| matches!(effect, Effect::Keep(_) | Effect::Route(_));
            let effects = self.watch.phase().effects();
            effects.into_iter().filter(keep).for_each(|effect| self.act(effect));
        }
        while let Some(event) = self.queue.pop_front() {
            self.happen(&event);
        }
        // A host that boots starts them together with us.
        for release in self.watch.phase().needed() {
            self.proxy.await_start(release.number, START_AWAITED);
        }
        self.check_seals();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Signal(signal) => self.hear(signal),
            Input::Told(number, text) => self.note(number, &text),
            Input::Found(number, because) => self.found(number, None, &because),
            Input::Named(number, name) => self.named(number, name),
            Input::Event(mut event) => {
                self.tell_uses(&mut event);
                self.learn(&event);
                self.happen(&event);
            }
            Input::Order(order, told) => self.order(self.clock.now(), order, told),
            Input::Sealed(order, seal, told) => self.ordered(self.clock.now(), order, seal, told),
            Input::Doubted(number, doubt) => self.doubted(number, &doubt),
            Input::Status(asked) => {
                let _ = asked.send(self.status());
            }
            Input::Configure(service) => {
                self.watch.set_policy(service.policy.clone());
                self.proxy.configure(&service);
                self.service = service;
                self.tell_phase();
            }
            Input::HandOver(..) | Input::Stop(..) => (),
        }
    }

    /// What the proxy has to know of the phase, besides where the traffic goes.
    fn tell_phase(&self) {
        let phase = self.watch.phase();
        self.proxy.on_trial(phase.on_trial());
        let accepted = matches!(phase, Phase::Steady { .. }) && self.service.move_forward;
        let warm = phase.warm().filter(|_| accepted).map(|warm| warm.number);
        self.proxy.yields(warm);
        self.tell_units();
    }

    /// A warm release that serves nobody makes room for the active one; whose turn may come at once
    /// has its full share.
    fn tell_units(&self) {
        if !matches!(self.service.runtime, Runtime::Systemd(_)) {
            return;
        }
        let (phase, held) = (self.watch.phase(), self.watch.hold().is_some());
        let rests = matches!(phase, Phase::Steady { .. } | Phase::Baking { .. });
        let warm = phase.warm().filter(|_| rests).map(|warm| warm.number);
        for release in phase.needed() {
            let waits = warm == Some(release.number) && !self.proxy.serves(release.number);
            self.crew.wish(release.number, Wish { waits, held });
        }
    }

    /// A new release is ready: what would clients miss?
    fn tell_uses(&self, event: &mut Event) {
        if let Event::Ready(_, readiness) = event {
            for release in self.watch.phase().needed() {
                let calls = self.proxy.calls(release.number);
                self.uses.add(release.number, calls, &mut readiness.used);
            }
        }
    }

    /// A block of time is over: the counters speak, and deadlines pass.
    fn block(&mut self) {
        let now = self.clock.now();
        self.pulse.beat();
        self.pulse.say(format!("{}: {}", self.service.name, self.watch.phase()));
        let numbers: Vec<_> = self.watch.phase().needed().iter().map(|it| it.number).collect();
        self.gauges.retain(|number, _| numbers.contains(number));
        self.uses.retain(&numbers);
        for release in numbers {
            let counts = self.gauges.entry(release).or_default().block(self.proxy.counts(release));
            self.weigh(now, &Signal { release, seen: Seen::Block(BLOCK_MS, counts) });
            if (self.ticks + 1).is_multiple_of(LOOK_BLOCKS) {
                self.uses.look(release, self.proxy.calls(release));
            }
        }
        self.shadow(now);
        self.count_calls(now, self.ticks);
        self.judged(now);
        if let Some((number, because)) = self.trials.trial.recovered(now) {
            self.happen(&Event::Recovered(number, because));
        }
        if self.watch.deadline().is_some_and(|due| due <= now) {
            self.due(now);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(UNITS_BLOCKS) {
            self.tell_units();
        }
        if self.ticks.is_multiple_of(SWEEP_BLOCKS) {
            self.proxy.sweep(now);
        }
    }

    fn hear(&mut self, signal: Signal) {
        let now = self.clock.now();
        self.weigh(now, &signal);
        match signal.seen {
            Seen::Probe(reply) => {
                if reply.is_ok() {
                    self.gauges.entry(signal.release).or_default().answers();
                }
                self.probes.insert(signal.release, reply);
            }
            Seen::Exited(how) => self.died(now, signal.release, &how),
            Seen::Block(..) | Seen::Calls(_) | Seen::Shadow(..) | Seen::Scraped(_) => (),
        }
        self.judged(now);
    }

    pub(super) fn judged(&mut self, now: Moment) {
        let Some(judge) = self.trials.judge() else { return };
        self.crew.hurry(judge.suspicious(now));
        let (verdict, release) = (judge.verdict(now), judge.release());
        let load = self.load(now, release);
        self.happen(&Event::Judged(verdict, load));
    }

    fn load(&self, now: Moment, release: Number) -> Load {
        let rate = self.gauges.get(&release).map(Gauge::rate).unwrap_or_default();
        Load { rate, ..self.proxy.load(release, now) }
    }

    pub(super) fn happen(&mut self, event: &Event) {
        if let Some(decision) = self.watch.step(self.clock.now(), event) {
            // Not written down: not decided. The next block leads here again.
            let _ = self.commit(decision);
        }
    }

    /// Write it down, then do it.
    pub(super) fn commit(&mut self, decision: Decision) -> Result<Arc<Entry>, String> {
        let now = self.clock.now();
        let Decision { because, fact, then } = decision;
        let words = then.iter().map(ToString::to_string).collect();
        let wall = self.clock.wall();
        let (timeline, copy) = (&mut self.timeline, fact.clone());
        let began = tokio::time::Instant::now();
        let written =
            tokio::task::block_in_place(|| timeline.append(now, wall, because, copy, words));
        let entry = match written {
            Ok(entry) => Arc::new(entry),
            Err(error) => {
                self.ledger.failed();
                let trouble = format!("failed to write the timeline, nothing is decided: {error}");
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(service = self.service.name, page = true, "{trouble}");
                }
                self.trouble = Some(trouble.clone());
                return Err(trouble);
            }
        };
        self.ledger.note(&entry, began.elapsed());
        if self.trouble.take().is_some() {
            tracing::info!(service = self.service.name, "the timeline can be written again");
        }
        self.log(&entry);
        self.watch.apply(now, &fact);
        self.tell_phase();
        then.into_iter().for_each(|effect| self.act(effect));
        self.open_trials(now);
        // Nobody may be following.
        let _ = self.entries.send(Arc::clone(&entry));
        Ok(entry)
    }

    /// The system's journal gets the same entry.
    fn log(&self, entry: &Entry) {
        let Entry { fact, deploy, seq, because, then, .. } = entry;
        let release = match fact {
            Fact::Deployed { release, .. } | Fact::Found { release, .. } => Some(release),
            _ => self.watch.phase().release(*deploy),
        };
        let service = self.service.name.as_str();
        let release = release.map(|it| it.version.as_str());
        let severity = fact.severity().map(|it| it.to_string());
        let (severity, kind) = (severity.as_deref(), fact.kind());
        let page = then.iter().any(|effect| effect == "page").then_some(true);
        tracing::info!(service, deploy = deploy.0, release, severity, seq, page, kind, "{because}");
    }

    /// How long a stop may take, for whoever waits.
    pub(super) fn patience(service: &Service, ending: Ending) -> Duration {
        let last = Duration::from_secs(2);
        let leave = if ending.gently { service.policy.drain + last } else { Duration::ZERO };
        leave
            + match &service.runtime {
                Runtime::Command(command) => command.stop + Duration::from_secs(3),
                Runtime::External | Runtime::Systemd(_) => Duration::from_secs(3),
            }
    }
}
