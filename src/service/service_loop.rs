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
    Decision, Effect, Event, Moment, Observation, ProbeResult, ReleaseLoad, ReleaseNumber, Signal,
    TimelineEntry, TimelineEvent,
};
use crate::proxy::Proxy;
use crate::record::{Timeline, Truncated};
use crate::service::artifact_guard::ArtifactGuard;
use crate::service::bake::Bake;
use crate::service::call_usage::{CallUsage, SNAPSHOT_BLOCKS};
use crate::service::counters::EventCounters;
use crate::service::heartbeat::Heartbeat;
use crate::service::inbox::{ServiceMessage, Shutdown, Startup};
use crate::service::shadow_controller::ShadowController;
use crate::service::supervisor::release_supervisor::ReleaseSupervisor;
use crate::service::supervisor::unit_supervisor::DesiredUnit;
use crate::service::traffic_window::TrafficWindow;

/// How long requests wait, after the daemon started, for a release that is started with it.
const STARTUP_GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether the warm release serves anybody, in blocks.
const UNIT_WEIGHTS_BLOCKS: u64 = 4;
/// How often silent sessions are looked for, in blocks.
const SESSION_SWEEP_BLOCKS: u64 = 120;

/// What keeps one service.
#[derive(Debug)]
pub(crate) struct ServiceLoop {
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Clock,
    pub(crate) watch: Watch,
    pub(crate) proxy: Proxy,
    pub(crate) bake: Bake,
    pub(crate) traffic: BTreeMap<ReleaseNumber, TrafficWindow>,
    pub(crate) last_probes: BTreeMap<ReleaseNumber, ProbeResult>,
    pub(crate) timeline_error: Option<String>,
    pub(crate) counters: EventCounters,
    timeline: Timeline,
    pub(crate) supervisor: ReleaseSupervisor,
    pub(crate) shadow_controller: ShadowController,
    pub(crate) artifact_guard: ArtifactGuard,
    call_usage: CallUsage,
    pub(crate) exit_counts: BTreeMap<ReleaseNumber, u32>,
    /// What releases call themselves.
    pub(crate) identities: BTreeMap<ReleaseNumber, String>,
    pub(crate) inbox: mpsc::Sender<ServiceMessage>,
    entries: broadcast::Sender<Arc<TimelineEntry>>,
    /// Events that effects led to at once.
    pub(crate) pending_events: VecDeque<Event>,
    ticks: u64,
    heartbeat: Heartbeat,
}

impl ServiceLoop {
    /// A keeper for a service whose timeline was read; nothing happens before [`Self::run`].
    #[expect(clippy::too_many_arguments, reason = "it is put together once, from distinct parts")]
    pub(crate) fn new(
        service: Arc<Service>,
        clock: Clock,
        watch: Watch,
        timeline: Timeline,
        proxy: Proxy,
        (supervisor, artifact_guard): (ReleaseSupervisor, ArtifactGuard),
        inbox: mpsc::Sender<ServiceMessage>,
        entries: broadcast::Sender<Arc<TimelineEntry>>,
        dir: PathBuf,
    ) -> Self {
        Self {
            service,
            clock,
            watch,
            proxy,
            bake: Bake::new(dir),
            traffic: BTreeMap::new(),
            last_probes: BTreeMap::new(),
            timeline_error: None,
            counters: EventCounters::new(),
            timeline,
            supervisor,
            shadow_controller: ShadowController::default(),
            artifact_guard,
            call_usage: CallUsage::default(),
            exit_counts: BTreeMap::new(),
            identities: BTreeMap::new(),
            inbox,
            entries,
            pending_events: VecDeque::new(),
            ticks: 0,
            heartbeat: Heartbeat::default(),
        }
    }

    /// What shows that its loop goes round.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// The loop. Ends when told to.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::Receiver<ServiceMessage>,
        startup: Startup,
    ) {
        self.recover(&startup);
        // Not before its route is known: who waits in the backlog would be told that there is none.
        self.proxy.start_accepting();
        let mut blocks = tokio::time::interval(BLOCK);
        blocks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = blocks.tick() => self.on_block(),
                message = messages.recv() => match message {
                    Some(ServiceMessage::Stop(shutdown, stopped)) => {
                        self.shut_down(shutdown).await;
                        let _ = stopped.send(());
                        return;
                    }
                    Some(ServiceMessage::HandOver(successor, released)) => {
                        self.detach(&successor).await;
                        // All files are closed before anybody is told.
                        drop(self);
                        let _ = released.send(());
                        return;
                    }
                    Some(message) => self.dispatch(message),
                    None => return,
                },
            }
            while let Some(event) = self.pending_events.pop_front() {
                self.step(&event);
            }
        }
    }

    /// Lets everybody go, as far as there is time for it.
    async fn shut_down(&mut self, shutdown: Shutdown) {
        if shutdown.drain {
            self.proxy.close_gracefully(self.service.policy.drain_timeout, shutdown.restart).await;
        }
        self.proxy.shut_down().await;
        if !shutdown.restart {
            self.supervisor.stop().await;
        }
    }

    /// Goes on where the timeline ends.
    fn recover(&mut self, Startup { cause: who, truncated: torn }: &Startup) {
        self.supervisor.stop_unneeded(&self.service, &self.watch.phase().required_releases());
        self.query_read_only_tools();
        if *self.watch.phase() == Phase::Empty && *torn == Truncated(0) {
            return;
        }
        let restored = self.watch.restored_by(who, self.clock.now(), torn.0);
        if self.record_and_apply(restored).is_err() {
            // The disk is full, say. Traffic goes where it went; nothing new is decided.
            let is_routing =
                |effect: &Effect| matches!(effect, Effect::KeepRunning(_) | Effect::Route(_));
            let effects = self.watch.phase().effects();
            effects.into_iter().filter(is_routing).for_each(|effect| self.execute(effect));
        }
        while let Some(event) = self.pending_events.pop_front() {
            self.step(&event);
        }
        // A host that boots starts them together with us.
        for release in self.watch.phase().required_releases() {
            self.proxy.allow_startup(release.number, STARTUP_GRACE);
        }
        self.verify_all_artifacts();
    }

    fn dispatch(&mut self, message: ServiceMessage) {
        match message {
            ServiceMessage::Signal(signal) => self.handle_signal(signal),
            ServiceMessage::ReleaseNote(number, text) => self.record_note(number, &text),
            ServiceMessage::ReleaseReplaced(number, because) => {
                self.on_replaced(number, None, &because)
            }
            ServiceMessage::IdentityChanged(number, name) => self.on_identity(number, name),
            ServiceMessage::Event(mut event) => {
                self.attach_call_usage(&mut event);
                self.update_read_only_tools(&event);
                self.step(&event);
            }
            ServiceMessage::Command(order, reply) => {
                self.handle_command(self.clock.now(), order, reply)
            }
            ServiceMessage::ResolvedCommand(order, verifier, reply) => {
                self.apply_command(self.clock.now(), order, verifier, reply)
            }
            ServiceMessage::VerifyFailed(number, error) => self.on_verify_error(number, &error),
            ServiceMessage::Status(reply) => {
                let _ = reply.send(self.status());
            }
            ServiceMessage::Configure(service) => {
                self.watch.set_policy(service.policy.clone());
                self.proxy.configure(&service);
                self.service = service;
                self.publish_phase();
            }
            ServiceMessage::HandOver(..) | ServiceMessage::Stop(..) => (),
        }
    }

    /// What the proxy has to know of the phase, besides where the traffic goes.
    fn publish_phase(&self) {
        let phase = self.watch.phase();
        self.proxy.set_trial(phase.on_trial());
        let accepted = matches!(phase, Phase::Steady { .. }) && self.service.migrate_on_accept;
        let warm = phase.warm().filter(|_| accepted).map(|warm| warm.number);
        self.proxy.migrate_sessions_from(warm);
        self.update_unit_weights();
    }

    /// A warm release that serves nobody makes room for the active one; whose turn may come at once
    /// has its full share.
    fn update_unit_weights(&self) {
        if !matches!(self.service.runtime, Runtime::Systemd(_)) {
            return;
        }
        let (phase, held) = (self.watch.phase(), self.watch.hold().is_some());
        let is_stable = matches!(phase, Phase::Steady { .. } | Phase::Baking { .. });
        let warm = phase.warm().filter(|_| is_stable).map(|warm| warm.number);
        for release in phase.required_releases() {
            let is_idle = warm == Some(release.number) && !self.proxy.has_traffic(release.number);
            self.supervisor.set_desired(release.number, DesiredUnit { throttled: is_idle, held });
        }
    }

    /// A new release is ready: what would clients miss?
    fn attach_call_usage(&self, event: &mut Event) {
        if let Event::Ready(_, readiness) = event {
            for release in self.watch.phase().required_releases() {
                let calls = self.proxy.counts_by_call(release.number);
                self.call_usage.add_last_hour(release.number, calls, &mut readiness.call_usage);
            }
        }
    }

    /// A block of time is over: the counters speak, and deadlines pass.
    fn on_block(&mut self) {
        let now = self.clock.now();
        self.heartbeat.beat();
        self.heartbeat.set_status(format!("{}: {}", self.service.name, self.watch.phase()));
        let numbers: Vec<_> =
            self.watch.phase().required_releases().iter().map(|it| it.number).collect();
        self.traffic.retain(|number, _| numbers.contains(number));
        self.call_usage.retain(&numbers);
        for release in numbers {
            let counts =
                self.traffic.entry(release).or_default().add_block(self.proxy.counts(release));
            self.observe(
                now,
                &Signal { release, observation: Observation::Block(BLOCK_MS, counts) },
            );
            if (self.ticks + 1).is_multiple_of(SNAPSHOT_BLOCKS) {
                self.call_usage.snapshot(release, self.proxy.counts_by_call(release));
            }
        }
        self.schedule_shadow_calls(now);
        self.observe_calls(now, self.ticks);
        self.evaluate_trial(now);
        if let Some((number, because)) = self.bake.trial.recovery(now) {
            self.step(&Event::Recovered(number, because));
        }
        if self.watch.deadline().is_some_and(|due| due <= now) {
            self.on_deadline(now);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(UNIT_WEIGHTS_BLOCKS) {
            self.update_unit_weights();
        }
        if self.ticks.is_multiple_of(SESSION_SWEEP_BLOCKS) {
            self.proxy.expire_sessions(now);
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        let now = self.clock.now();
        self.observe(now, &signal);
        match signal.observation {
            Observation::Probe(reply) => {
                if reply.is_ok() {
                    self.traffic.entry(signal.release).or_default().mark_answered();
                }
                self.last_probes.insert(signal.release, reply);
            }
            Observation::Exited(how) => self.on_exit(now, signal.release, &how),
            Observation::Block(..)
            | Observation::Calls(_)
            | Observation::Shadow(..)
            | Observation::Scraped(_) => (),
        }
        self.evaluate_trial(now);
    }

    pub(crate) fn evaluate_trial(&mut self, now: Moment) {
        let Some(judge) = self.bake.judge() else { return };
        self.supervisor.set_fast_probing(judge.is_suspicious(now));
        let (verdict, release) = (judge.verdict(now), judge.release());
        let load = self.load(now, release);
        self.step(&Event::Judged(verdict, load));
    }

    fn load(&self, now: Moment, release: ReleaseNumber) -> ReleaseLoad {
        let rate = self.traffic.get(&release).map(TrafficWindow::rate).unwrap_or_default();
        ReleaseLoad { request_rate: rate, ..self.proxy.load(release, now) }
    }

    pub(crate) fn step(&mut self, event: &Event) {
        if let Some(decision) = self.watch.on_event(self.clock.now(), event) {
            // Not written down: not decided. The next block leads here again.
            let _ = self.record_and_apply(decision);
        }
    }

    /// Write it down, then do it.
    pub(crate) fn record_and_apply(
        &mut self,
        decision: Decision,
    ) -> Result<Arc<TimelineEntry>, String> {
        let now = self.clock.now();
        let Decision { because, event: fact, effects } = decision;
        let effect_names = effects.iter().map(ToString::to_string).collect();
        let wall = self.clock.wall_time();
        let (timeline, recorded_fact) = (&mut self.timeline, fact.clone());
        let began = tokio::time::Instant::now();
        let written = tokio::task::block_in_place(|| {
            timeline.append(now, wall, because, recorded_fact, effect_names)
        });
        let entry = match written {
            Ok(entry) => Arc::new(entry),
            Err(error) => {
                self.counters.record_write_failure();
                let message = format!("cannot write the timeline, so no decision is made: {error}");
                if self.timeline_error.as_ref() != Some(&message) {
                    tracing::error!(service = self.service.name, page = true, "{message}");
                }
                self.timeline_error = Some(message.clone());
                return Err(message);
            }
        };
        self.counters.record(&entry, began.elapsed());
        if self.timeline_error.take().is_some() {
            tracing::info!(service = self.service.name, "the timeline is writable again");
        }
        self.log_entry(&entry);
        self.watch.apply(now, &fact);
        self.publish_phase();
        effects.into_iter().for_each(|effect| self.execute(effect));
        self.sync_judge(now);
        // Nobody may be following.
        let _ = self.entries.send(Arc::clone(&entry));
        Ok(entry)
    }

    /// The system's journal gets the same entry.
    fn log_entry(&self, entry: &TimelineEntry) {
        let TimelineEntry { event: fact, deploy, seq, because, planned_effects: then, .. } = entry;
        let release = match fact {
            TimelineEvent::Deployed { release, .. } | TimelineEvent::Replaced { release, .. } => {
                Some(release)
            }
            _ => self.watch.phase().release(*deploy),
        };
        let service = self.service.name.as_str();
        let release = release.map(|it| it.version.as_str());
        let severity = fact.severity().map(|it| it.to_string());
        let (severity, kind) = (severity.as_deref(), fact.kind());
        let page = then.iter().any(|effect| effect == "page").then_some(true);
        tracing::info!(service, deploy = deploy.0, release, severity, seq, page, kind, "{because}");
    }

    /// Lets go of everything, and leaves it as it is: another daemon takes it up.
    async fn detach(&mut self, successor: &str) {
        // Time until here was watched. Without this line, deadlines would move by it.
        if self.watch.deadline().is_some() {
            let because = format!("handing over to {successor}");
            let _ = self.record_and_apply(Decision {
                because,
                event: TimelineEvent::Noted,
                effects: Vec::new(),
            });
        }
        self.supervisor.detach_all().await;
    }
}
