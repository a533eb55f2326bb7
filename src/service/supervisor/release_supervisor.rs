//! The releases that run: for each one a task that keeps its process alive, and one that probes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::act::{Process, ProcessSpec, Unit};
use crate::artifact::{Verifier, VerifyError};
use crate::clock::Clock;
use crate::config::{Address, Runtime, Service};
use crate::model::{
    Event, Observation, ReadinessReport, Release, ReleaseNumber, Signal, Slot, Ticket,
};
use crate::proxy::Proxy;
use crate::service::inbox::ServiceMessage;
use crate::service::supervisor::orphan_cleanup::SlotRuntime;
use crate::service::supervisor::probe_tasks::{
    run_prober, run_scraper, verify_artifact, verify_before_start, wait_ready,
};
use crate::service::supervisor::unit_supervisor::{DesiredUnit, UnitSupervisor};
use crate::signal::{Prober, Scraper, UnitMonitor};
use crate::systemd::SystemdManager;

/// Wait before a process that died is started again: at once, then doubling to the maximum.
pub(crate) const RESTART_DELAY_MIN: Duration = Duration::from_millis(250);
pub(crate) const RESTART_DELAY_MAX: Duration = Duration::from_secs(10);
/// How long a rollback waits for the full share of processor and disk.
const WEIGHT_RESTORE_TIMEOUT: Duration = Duration::from_millis(250);
/// A process that lived this long starts again at once.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(60);

/// What runs for one service.
#[derive(Debug)]
pub(crate) struct ReleaseSupervisor {
    state_dir: PathBuf,
    manager: SystemdManager,
    clock: Clock,
    inbox: mpsc::Sender<ServiceMessage>,
    fast_probing: watch::Sender<bool>,
    releases: BTreeMap<ReleaseNumber, ReleaseTasks>,
    stopping: BTreeMap<Slot, JoinHandle<()>>,
    current_check: Option<JoinHandle<()>>,
}

/// What the keeper of a unit is told, and whether the unit has its full share.
#[derive(Debug)]
struct UnitControl {
    desired: watch::Sender<DesiredUnit>,
    has_full_weight: watch::Receiver<bool>,
}

/// The tasks of one release.
#[derive(Debug)]
struct ReleaseTasks {
    stop: CancellationToken,
    /// What keeps its process or its unit.
    runtime: Option<JoinHandle<()>>,
    unit: Option<UnitControl>,
    prober: JoinHandle<()>,
    scraper: Option<JoinHandle<()>>,
}

impl ReleaseSupervisor {
    /// Nobody yet.
    pub(crate) fn new(
        state_dir: PathBuf,
        manager: SystemdManager,
        clock: Clock,
        inbox: mpsc::Sender<ServiceMessage>,
    ) -> Self {
        let (fast_probing, _) = watch::channel(false);
        let (releases, stopping) = (BTreeMap::new(), BTreeMap::new());
        Self {
            state_dir,
            manager,
            clock,
            inbox,
            fast_probing,
            releases,
            stopping,
            current_check: None,
        }
    }

    /// Keeps a release running and probed, from now on. A `must_start` one is not taken to run already.
    pub(crate) fn supervise(
        &mut self,
        service: &Arc<Service>,
        (release, address): (&Release, &Address),
        verifier: Option<Verifier>,
        must_start: bool,
    ) {
        if self.releases.contains_key(&release.number) {
            return;
        }
        let stop = CancellationToken::new();
        let (runtime, unit) =
            self.spawn_runtime(service, (release, address), verifier, must_start, stop.clone());
        let prober = Prober::new(&service.probe, &service.path, address, release);
        let interval = service.probe.interval;
        let fast_probing = self.fast_probing.subscribe();
        let inbox = self.inbox.clone();
        let prober = run_prober(prober, release.number, interval, fast_probing, inbox);
        let prober = tokio::spawn(prober);
        let scraper = service.scrape.as_ref().map(|it| {
            let scraper = Scraper::new(it, address, release);
            let inbox = self.inbox.clone();
            tokio::spawn(run_scraper(scraper, release.number, it.interval, self.clock, inbox))
        });
        let tasks = ReleaseTasks { stop, runtime, unit, prober, scraper };
        self.releases.insert(release.number, tasks);
    }

    /// Starts what keeps a release running.
    fn spawn_runtime(
        &mut self,
        service: &Arc<Service>,
        (release, address): (&Release, &Address),
        verifier: Option<Verifier>,
        must_start: bool,
        stop: CancellationToken,
    ) -> (Option<JoinHandle<()>>, Option<UnitControl>) {
        let inbox = self.inbox.clone();
        match &service.runtime {
            Runtime::External => (None, None),
            Runtime::Command(command) => {
                let spec = ProcessSpec {
                    command: command.clone(),
                    release: release.clone(),
                    address: address.clone(),
                    service: service.name.clone(),
                    state_dir: self.state_dir.clone(),
                };
                let predecessor = self.stopping.remove(&release.slot);
                (
                    Some(tokio::spawn(supervise_process(spec, verifier, predecessor, stop, inbox))),
                    None,
                )
            }
            Runtime::Systemd(template) => {
                let owner = (service.name.as_str(), self.state_dir.as_path());
                let start_timeout = service.policy.start_timeout;
                let unit = Unit::new(
                    self.manager.clone(),
                    template,
                    release,
                    address,
                    owner,
                    start_timeout,
                );
                let watcher = UnitMonitor::new(self.manager.clone(), unit.name());
                let (desired, desired_changes) = watch::channel(DesiredUnit::default());
                let (weight_state, has_full_weight) = watch::channel(true);
                let release_number = release.number;
                let supervisor = UnitSupervisor {
                    unit,
                    watcher,
                    verifier,
                    release: release_number,
                    must_start,
                    stop,
                    desired: desired_changes,
                    has_full_weight: weight_state,
                    inbox,
                };
                let predecessor = self.stopping.remove(&release.slot);
                (
                    Some(tokio::spawn(supervisor.run(predecessor))),
                    Some(UnitControl { desired, has_full_weight }),
                )
            }
        }
    }

    /// Tells the keeper of a release's unit what is wanted of it.
    pub(crate) fn set_desired(&self, release: ReleaseNumber, wish: DesiredUnit) {
        let unit = self.releases.get(&release).and_then(|hand| hand.unit.as_ref());
        if let Some(UnitControl { desired: sender, .. }) = unit {
            sender.send_if_modified(|current| std::mem::replace(current, wish) != wish);
        }
    }

    /// Probes faster, or as usual again.
    pub(crate) fn set_fast_probing(&self, fast: bool) {
        self.fast_probing.send_if_modified(|current| std::mem::replace(current, fast) != fast);
    }

    /// Asks a release until it answers several times in a row, then tells what it offers.
    pub(crate) fn check_readiness(
        &mut self,
        ticket: Ticket,
        service: &Arc<Service>,
        new: (&Release, &Address),
        active: Option<(&Release, &Address)>,
        proxy: Proxy,
    ) {
        let prober =
            |(release, address)| Prober::new(&service.probe, &service.path, address, release);
        let (new_prober, active_prober) = (prober(new), active.map(prober));
        let in_use = active.map(|(active, _)| active.number);
        let (service, inbox) = (Arc::clone(service), self.inbox.clone());
        self.start_check(async move {
            let timeout = service.policy.start_timeout;
            let readiness = wait_ready(new_prober, active_prober, &service);
            // Whoever waits for the answer has given up by then.
            let Ok(readiness) = tokio::time::timeout(timeout, readiness).await else { return };
            let in_use = in_use.map(|number| proxy.protocol_versions(number)).unwrap_or_default();
            let readiness = Box::new(ReadinessReport { protocols_in_use: in_use, ..readiness });
            let event = Event::Ready(ticket, readiness);
            let _ = inbox.send(ServiceMessage::Event(event)).await;
        });
    }

    /// Asks a release once, now, and looks whether its artifact is still what was deployed. Its unit
    /// has its full share by then, if systemd gives it in time.
    pub(crate) fn probe_before_switch(
        &mut self,
        ticket: Ticket,
        service: &Service,
        (release, address): (&Release, &Address),
        verifier: Option<Verifier>,
    ) {
        let mut prober = Prober::new(&service.probe, &service.path, address, release);
        let inbox = self.inbox.clone();
        let number = release.number;
        let unit = self.releases.get(&number).and_then(|hand| hand.unit.as_ref());
        let full_weight = unit.map(|control| control.has_full_weight.clone());
        self.start_check(async move {
            let (reply, verify_error, ()) = tokio::join!(
                prober.probe(),
                verify_artifact(verifier),
                wait_for_full_weight(full_weight)
            );
            if let Some(error) = verify_error {
                let message = match &error {
                    VerifyError::Unreadable { .. } => ServiceMessage::VerifyFailed(number, error),
                    VerifyError::Changed { .. } | VerifyError::Gone { .. } => {
                        ServiceMessage::Event(Event::ArtifactChanged(ticket, error.to_string()))
                    }
                };
                let _ = inbox.send(message).await;
            }
            let _ = inbox.send(ServiceMessage::Event(Event::Probed(ticket, reply))).await;
            prober.close().await;
        });
    }

    /// One question at a time: a new one makes the answer to the last worthless.
    fn start_check(&mut self, check: impl Future<Output = ()> + Send + 'static) {
        if let Some(previous) = self.current_check.replace(tokio::spawn(check)) {
            previous.abort();
        }
    }

    /// Ends what is left on a release, then stops it. A later one in its slot waits for that.
    pub(crate) fn retire(&mut self, service: &Arc<Service>, release: &Release, proxy: Proxy) {
        let tasks = self.releases.remove(&release.number);
        let number = release.number;
        let runtime = SlotRuntime { manager: &self.manager, state_dir: &self.state_dir, service };
        // Nobody of ours keeps it: it may run all the same, from before a crash.
        let orphans = tasks.is_none().then(|| runtime.stop_release(release));
        let stopping = tokio::spawn(async move {
            proxy.remove_release(number).await;
            if let Some(tasks) = tasks {
                tasks.stop().await;
            }
            if let Some(stop_orphans) = orphans {
                stop_orphans.await;
            }
        });
        self.stopping.insert(release.slot.clone(), stopping);
    }

    /// Lets a release go whose slot is another one's by now: what runs there is not stopped, and
    /// what is open there may finish.
    pub(crate) fn detach_release(&mut self, service: &Service, release: &Release, proxy: Proxy) {
        if let Some(tasks) = self.releases.remove(&release.number) {
            tasks.detach();
        }
        let (number, timeout) = (release.number, service.policy.drain_timeout);
        tokio::spawn(async move {
            proxy.drain(number, timeout).await;
            proxy.remove_release(number).await;
        });
    }

    /// Stops processes and units of ours that belong to no release in `needed`. What needs their
    /// slots waits for that, the traffic does not.
    pub(crate) fn stop_unneeded(&mut self, service: &Arc<Service>, needed: &[&Release]) {
        let runtime = SlotRuntime { manager: &self.manager, state_dir: &self.state_dir, service };
        self.stopping.extend(runtime.stop_unneeded(needed));
    }

    /// Lets go of everything, and leaves it running: another daemon adopts it.
    pub(crate) async fn detach_all(&mut self) {
        let mut tasks: Vec<_> = std::mem::take(&mut self.stopping).into_values().collect();
        tasks.extend(self.current_check.take());
        for ReleaseTasks { runtime: life, prober, scraper, .. } in
            std::mem::take(&mut self.releases).into_values()
        {
            tasks.extend([Some(prober), scraper, life].into_iter().flatten());
        }
        tasks.iter().for_each(JoinHandle::abort);
        // What is just being started is there before it is let go of.
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Stops everything, but for units: systemd runs those, also without a daemon.
    pub(crate) async fn stop(&mut self) {
        if let Some(check) = self.current_check.take() {
            check.abort();
        }
        let (units, processes): (Vec<_>, Vec<_>) = std::mem::take(&mut self.releases)
            .into_values()
            .partition(|tasks| tasks.unit.is_some());
        units.into_iter().for_each(ReleaseTasks::detach);
        processes.iter().for_each(|hand| hand.stop.cancel());
        for tasks in processes {
            tasks.stop().await;
        }
        for stopping in std::mem::take(&mut self.stopping).into_values() {
            let _ = stopping.await;
        }
    }
}

impl ReleaseTasks {
    async fn stop(self) {
        self.stop.cancel();
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        if let Some(life) = self.runtime {
            let _ = life.await;
        }
    }

    /// Ends every task; what runs, goes on.
    fn detach(self) {
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        self.runtime.iter().for_each(JoinHandle::abort);
    }
}

/// Waits until a unit that rested has its full share again.
async fn wait_for_full_weight(full_weight: Option<watch::Receiver<bool>>) {
    if let Some(mut full_weight) = full_weight {
        // With less it still answers; that is better than what is left.
        let _ =
            tokio::time::timeout(WEIGHT_RESTORE_TIMEOUT, full_weight.wait_for(|is_full| *is_full))
                .await;
    }
}

/// Keeps one process alive until told to stop.
async fn supervise_process(
    spec: ProcessSpec,
    verifier: Option<Verifier>,
    predecessor: Option<JoinHandle<()>>,
    stop: CancellationToken,
    inbox: mpsc::Sender<ServiceMessage>,
) {
    if let Some(predecessor) = predecessor {
        let _ = predecessor.await;
    }
    let mut delay = Duration::ZERO;
    let mut adopted = Process::adopt(&spec);
    while !stop.is_cancelled() {
        let started_at = tokio::time::Instant::now();
        let started = match adopted.take() {
            Some(process) => Ok(process),
            None => {
                verify_before_start(verifier.as_ref()).await.and_then(|()| Process::start(&spec))
            }
        };
        let reason = match started {
            Err(error) => format!("it was not started: {error}"),
            Ok(mut process) => {
                let exit = tokio::select! {
                    how = process.wait_exit() => Some(how),
                    () = stop.cancelled() => None,
                };
                // Also after its end: helpers that it left behind may hold the port.
                if let Err(error) = process.stop().await {
                    tracing::error!(release = %spec.release, "failed to stop: {error}");
                }
                let Some(exit) = exit else { return };
                format!("its process ended: {exit} (output: {})", spec.output_path().display())
            }
        };
        delay = if started_at.elapsed() >= STABLE_AFTER { Duration::ZERO } else { delay };
        let signal =
            Signal { release: spec.release.number, observation: Observation::Exited(reason) };
        let _ = inbox.send(ServiceMessage::Signal(signal)).await;
        tokio::select! {
            () = tokio::time::sleep(delay) => (),
            () = stop.cancelled() => (),
        }
        delay = (delay * 2).clamp(RESTART_DELAY_MIN, RESTART_DELAY_MAX);
    }
}
