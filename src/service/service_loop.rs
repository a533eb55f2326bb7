//! The loop of one service: messages and blocks in, through the machine, to the timeline and effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config::{Runtime, Service};
use crate::decide::Watch;
use crate::judge::{BLOCK, Judge};
use crate::machine::{Input, ServiceMachine};
use crate::model::{
    Event, Moment, Observation, ReleaseLoad, ReleaseNumber, Signal, StartCause, TimelineEntry,
};
use crate::proxy::Proxy;
use crate::service::artifact_guard::{self, ArtifactGuard};
use crate::service::bake::BakeLog;
use crate::service::call_usage::CallUsage;
use crate::service::heartbeat::Heartbeat;
use crate::service::inbox::{ServiceMessage, Shutdown, Startup};
use crate::service::recording::Recorder;
use crate::service::shadow_controller::ShadowController;
use crate::service::supervisor::release_supervisor::ReleaseSupervisor;
use crate::service::supervisor::reporter::Reporter;
use crate::service::supervisor::unit_supervisor::DesiredUnit;
use crate::service::traffic_window::TrafficWindow;

/// How long requests wait, after a start of the daemon, for a release that starts with it.
const STARTUP_GRACE: Duration = Duration::from_secs(5);
/// How long requests wait for a release whose process ended: its supervisor restarts it.
const RESTART_GRACE: Duration = Duration::from_secs(2);

/// The driver of one [`ServiceMachine`]: it records what the machine decides, then executes it. Nothing
/// happens before [`Self::run`].
#[derive(Debug)]
pub(crate) struct ServiceLoop {
    pub(super) service: Arc<Service>,
    pub(super) clock: Clock,
    pub(super) machine: ServiceMachine,
    pub(super) recorder: Recorder,
    pub(super) bake_log: BakeLog,
    pub(super) proxy: Proxy,
    pub(super) supervisor: ReleaseSupervisor,
    pub(super) artifact_guard: ArtifactGuard,
    pub(super) shadow_controller: ShadowController,
    pub(super) traffic: BTreeMap<ReleaseNumber, TrafficWindow>,
    /// Messages to the loop itself.
    pub(super) inbox: mpsc::Sender<ServiceMessage>,
    /// Settings that a reload changed and that wait for the next deploy.
    pub(super) awaits_deploy: BTreeSet<&'static str>,
    /// The settings at the newest deploy, or at the start of the daemon.
    pub(super) deployed_with: Arc<Service>,
    pub(super) call_usage: CallUsage,
    pub(super) ticks: u64,
    pub(super) heartbeat: Heartbeat,
}

impl ServiceLoop {
    /// Sets the names that releases reported before a restart.
    pub(crate) fn restore_identities(
        &mut self,
        names: impl IntoIterator<Item = (ReleaseNumber, String)>,
    ) {
        self.machine.restore_identities(names);
    }

    /// Takes in the outcomes that the timeline holds from before a restart.
    pub(crate) fn restore_outcomes(&mut self, entries: &[TimelineEntry]) {
        self.recorder.restore_outcomes(entries);
    }

    /// The state of the service.
    pub(super) fn watch(&self) -> &Watch {
        self.machine.watch()
    }

    /// The judge of the release on trial.
    pub(super) fn judge(&self) -> Option<&Judge> {
        self.machine.judge()
    }

    /// Shows that the loop runs.
    pub(crate) fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Runs until a message stops it.
    pub(crate) async fn run(
        mut self,
        mut messages: mpsc::Receiver<ServiceMessage>,
        startup: Startup,
    ) {
        self.recover(&startup);
        // After the route is known: before it, clients in the backlog would get an error.
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
                        // All files are closed before the successor opens them.
                        drop(self);
                        let _ = released.send(());
                        return;
                    }
                    Some(message) => self.dispatch(message),
                    None => return,
                },
            }
            self.settle();
        }
    }

    /// Closes clients and releases within the drain timeout.
    async fn shut_down(&mut self, shutdown: Shutdown) {
        if shutdown.drains() {
            let timeout = self.service.policy.drain_timeout;
            self.proxy.close_gracefully(timeout, shutdown.is_restart()).await;
        }
        self.proxy.shut_down().await;
        if !shutdown.is_restart() {
            self.supervisor.stop().await;
        }
    }

    /// Continues where the timeline ends.
    fn recover(&mut self, Startup { cause, truncated, damage }: &Startup) {
        self.supervisor
            .stop_unneeded(&self.service, &self.machine.watch().phase().required_releases());
        let phase = self.machine.watch().phase();
        self.shadow_controller.query_tools(&self.service, phase, &self.proxy);
        for text in damage {
            tracing::error!(service = self.service.name, page = true, "{text}");
        }
        let Some(restored) = self.machine.restored(cause, self.clock.now(), truncated.0) else {
            return;
        };
        if self.record_and_apply(restored).is_err() {
            // A full disk, say: the traffic stays, and there are no new decisions.
            let effects = self.machine.effects_when_unrecorded();
            effects.into_iter().for_each(|effect| self.execute(effect));
        }
        for text in damage {
            // The recorder reports a failure.
            let _ = self.record_and_apply(self.machine.note(text));
        }
        self.settle();
        // When the host boots, the releases start together with the daemon.
        for release in self.watch().phase().required_releases() {
            self.proxy.allow_startup(release.number, STARTUP_GRACE);
        }
        let required = self.watch().phase().required_releases();
        let numbers: Vec<_> = required.iter().map(|release| release.number).collect();
        // One that ran already does not start: after a crash of the daemon, say. The supervisors of units
        // ask systemd.
        let ages = self.supervisor.process_ages(&self.service);
        for number in numbers {
            let age = ages.get(&number).copied().unwrap_or_default();
            self.observe_start(number, StartCause::External, age);
        }
        let needed = self.machine.watch().phase().required_releases();
        self.artifact_guard.verify_all(needed, &Reporter::new(self.inbox.clone()));
    }

    /// A release started, so long ago: it is not down for as long as it may take.
    fn observe_start(&mut self, number: ReleaseNumber, cause: StartCause, age: Duration) {
        if let Some(signal) = self.machine.starting(number, cause, age) {
            self.observe(self.clock.now(), signal);
        }
    }

    fn dispatch(&mut self, message: ServiceMessage) {
        match message {
            ServiceMessage::Signal(signal) => self.on_signal(signal),
            ServiceMessage::ReleaseNote(number, text) => self.input(Input::Note(number, text)),
            ServiceMessage::ReleaseReplaced(number, because) => {
                self.input(Input::Replaced(number, because));
            }
            ServiceMessage::ReleaseStarted(number, age) => {
                self.observe_start(number, StartCause::External, age);
            }
            ServiceMessage::IdentityChanged(number, name) => {
                self.input(Input::Identity(number, name));
            }
            ServiceMessage::Event(mut event) => {
                self.attach_call_usage(&mut event);
                let (watch, proxy) = (self.machine.watch(), &self.proxy);
                self.shadow_controller.update_read_only_tools(&event, watch, proxy);
                self.input(Input::Event(event));
            }
            ServiceMessage::Command(order, reply) => {
                self.handle_command(self.clock.now(), order, reply)
            }
            ServiceMessage::ResolvedCommand(order, verifier, reply) => {
                self.apply_command(self.clock.now(), order, verifier, reply)
            }
            ServiceMessage::VerifyFailed(number, error) => {
                if let Some(text) = artifact_guard::report_error(&self.service.name, &error) {
                    self.input(Input::Note(number, text));
                }
            }
            ServiceMessage::Status(reply) => _ = reply.send(self.status()),
            ServiceMessage::Explain(reply) => _ = reply.send(self.explanation()),
            ServiceMessage::Fact(deploy, event, because) => {
                // The timeline of an earlier deploy is closed; the record of its incident is not.
                if self.watch().deploy() == deploy {
                    let _ = self.record_and_apply(self.machine.fact(event, because));
                }
            }
            ServiceMessage::Configure(service, reply) => _ = reply.send(self.reload(service)),
            #[cfg(test)]
            ServiceMessage::Panic => panic!("injected"),
            ServiceMessage::HandOver(..) | ServiceMessage::Stop(..) => (),
        }
    }

    /// Tells the proxy what it needs to know of the phase, besides the route.
    pub(super) fn publish_phase(&self) {
        let hints = self.machine.routing_hints();
        self.proxy.set_trial(hints.on_trial);
        self.proxy.migrate_sessions_from(hints.migrate_from);
        self.update_unit_weights();
    }

    /// A warm release without traffic yields resources to the active one.
    pub(super) fn update_unit_weights(&self) {
        if !matches!(self.service.runtime, Runtime::Systemd(_)) {
            return;
        }
        let held = self.watch().hold().is_some();
        let warm = self.machine.idle_candidate();
        for release in self.watch().phase().required_releases() {
            let is_idle = warm == Some(release.number) && !self.proxy.has_traffic(release.number);
            self.supervisor.set_desired(release.number, DesiredUnit { throttled: is_idle, held });
        }
    }

    /// Adds what clients used in the last hour, so that the decision names what they would miss.
    fn attach_call_usage(&self, event: &mut Event) {
        if let Event::Ready(_, readiness) = event {
            for release in self.watch().phase().required_releases() {
                let calls = self.proxy.counts_by_call(release.number);
                self.call_usage.add_last_hour(release.number, calls, &mut readiness.call_usage);
            }
            let active = self.watch().phase().active().map(|it| it.number);
            let load = active.map(|it| self.proxy.load(it, self.clock.now())).unwrap_or_default();
            (readiness.sessions, readiness.sessions_pinned) = (load.sessions, load.pinned);
            readiness.users = self.active_users();
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match &signal.observation {
            Observation::Probe(result) if result.is_ok() => {
                self.traffic.entry(signal.release).or_default().mark_answered();
            }
            Observation::Exited(how) => {
                self.proxy.allow_startup(signal.release, RESTART_GRACE);
                if let Some(release) = self.watch().phase().release(signal.release) {
                    tracing::warn!(service = self.service.name, %release, "{how}");
                }
            }
            _ => (),
        }
        let exited = matches!(signal.observation, Observation::Exited(_)).then_some(signal.release);
        self.observe(self.clock.now(), signal);
        if let Some(number) = exited {
            self.observe_start(number, StartCause::Exit, Duration::ZERO);
        }
    }

    /// Records a signal of the bake, and gives it to the machine.
    pub(super) fn observe(&mut self, now: Moment, signal: Signal) {
        self.machine.notice_pause(now);
        if self.machine.judge().is_some() && self.machine.is_evidence(now, &signal) {
            self.bake_log.append(now, &signal);
        }
        self.machine.handle(now, Input::Signal(signal));
    }

    /// Gives one input to the machine. [`Self::settle`] records and executes what it leads to.
    pub(super) fn input(&mut self, input: Input) {
        self.machine.handle(self.clock.now(), input);
    }

    /// Records and executes every decision that is due.
    pub(super) fn settle(&mut self) {
        loop {
            let now = self.clock.now();
            let (traffic, proxy) = (&self.traffic, &self.proxy);
            let load = |release| {
                let rate = traffic.get(&release).map(TrafficWindow::rate).unwrap_or_default();
                ReleaseLoad { request_rate: rate, ..proxy.load(release, now) }
            };
            let Some(proposal) = self.machine.poll(now, load) else { break };
            // The recorder reports a failure. Verdicts and deadlines return with the next block.
            let _ = self.record_and_apply(proposal);
        }
        self.supervisor.set_fast_probing(self.machine.probes_fast(self.clock.now()));
    }

    /// Detaches from the releases, which go on: another daemon takes them over.
    async fn detach(&mut self, successor: &str) {
        // Without this entry, deadlines would move by the time since the last one.
        if self.watch().deadline().is_some() {
            let note = self.machine.note(&format!("handing over to {successor}"));
            // The recorder reports a failure; the successor only sees later deadlines.
            let _ = self.record_and_apply(note);
        }
        self.supervisor.detach_all().await;
    }
}
