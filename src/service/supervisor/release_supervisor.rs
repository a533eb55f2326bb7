//! The releases of one service that run. Each has a task that keeps its process or unit running, a
//! prober, and a scraper where one is configured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::act::{ProcessSpec, Unit};
use crate::artifact::{Verifier, VerifyError};
use crate::config::{Address, Runtime, Service};
use crate::critical;
use crate::model::{Event, Release, ReleaseNumber, Ticket};
use crate::proxy::Proxy;
use crate::service::supervisor::artifact_check::verify_artifact;
use crate::service::supervisor::orphan_cleanup::SlotRuntime;
use crate::service::supervisor::probe_tasks::{run_prober, run_scraper, wait_ready};
use crate::service::supervisor::process_supervisor::supervise_process;
use crate::service::supervisor::reporter::Reporter;
use crate::service::supervisor::slot_stops::{SlotStops, StopCount, once_vacated};
use crate::service::supervisor::unit_supervisor::{DesiredUnit, StartPolicy, UnitSupervisor};
use crate::signal::{Prober, Scraper, UnitMonitor};
use crate::systemd::SystemdManager;

/// How long a rollback waits until a throttled unit has its full weights again.
const WEIGHT_RESTORE_TIMEOUT: Duration = Duration::from_millis(250);

/// A release, the address of its slot, and what verifies its artifact.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    pub release: &'a Release,
    pub address: &'a Address,
    pub verifier: Option<Verifier>,
}

/// What runs for one service.
#[derive(Debug)]
pub(crate) struct ReleaseSupervisor {
    state_dir: PathBuf,
    manager: SystemdManager,
    reporter: Reporter,
    fast_probing: watch::Sender<bool>,
    releases: BTreeMap<ReleaseNumber, ReleaseTasks>,
    stops: SlotStops,
    current_check: Option<JoinHandle<()>>,
}

/// The link to the supervisor of a unit.
#[derive(Debug)]
struct UnitControl {
    desired: watch::Sender<DesiredUnit>,
    has_full_weight: watch::Receiver<bool>,
}

/// The tasks of one release.
#[derive(Debug)]
struct ReleaseTasks {
    stop: CancellationToken,
    /// Keeps its process or unit running.
    runtime: Option<JoinHandle<()>>,
    unit: Option<UnitControl>,
    prober: JoinHandle<()>,
    scraper: Option<JoinHandle<()>>,
}

impl ReleaseSupervisor {
    /// Supervises no release yet. Those that it stops count in `stop_count`.
    pub(crate) fn new(
        state_dir: PathBuf,
        manager: SystemdManager,
        reporter: Reporter,
        stop_count: StopCount,
    ) -> Self {
        let (fast_probing, _) = watch::channel(false);
        let (releases, stops) = (BTreeMap::new(), SlotStops::new(stop_count));
        let current_check = None;
        Self { state_dir, manager, reporter, fast_probing, releases, stops, current_check }
    }

    /// What is cancelled when the slot of a release is free. Others run external releases: one may be in
    /// place before that.
    fn vacated(&self, service: &Service, release: &Release) -> Option<CancellationToken> {
        let is_ours = service.runtime != Runtime::External;
        self.stops.vacated(&release.slot).filter(|_| is_ours)
    }

    /// Keeps a release running and probed, from now on.
    pub(crate) fn supervise(
        &mut self,
        service: &Arc<Service>,
        placement: Placement<'_>,
        start: StartPolicy,
    ) {
        let Placement { release, address, .. } = placement;
        if self.releases.contains_key(&release.number) {
            return;
        }
        let span = tracing::info_span!("release", release = %release);
        let _entered = span.enter();
        let stop = CancellationToken::new();
        let prober = Prober::new(service, address, release);
        let interval = service.probe.interval;
        let (number, fast_probing) = (release.number, self.fast_probing.subscribe());
        let vacated = self.vacated(service, release);
        let prober = run_prober(prober, number, interval, fast_probing, self.reporter.clone());
        let prober = once_vacated(vacated.clone(), prober);
        let prober = critical::spawn(format!("the prober of {release}"), prober.in_current_span());
        let scraper = service.scrape.as_ref().map(|it| {
            let scraper = Scraper::new(it, address, &service.probe_host(address), release);
            let reporter = self.reporter.clone();
            let scraper = run_scraper(scraper, number, it.interval, reporter);
            let scraper = once_vacated(vacated.clone(), scraper);
            critical::spawn(format!("the scraper of {release}"), scraper.in_current_span())
        });
        let (runtime, unit) = self.spawn_runtime(service, placement, start, stop.clone());
        let tasks = ReleaseTasks { stop, runtime, unit, prober, scraper };
        self.releases.insert(number, tasks);
    }

    /// Starts the task that keeps a release running.
    fn spawn_runtime(
        &self,
        service: &Arc<Service>,
        Placement { release, address, verifier }: Placement<'_>,
        start: StartPolicy,
        stop: CancellationToken,
    ) -> (Option<JoinHandle<()>>, Option<UnitControl>) {
        let (reporter, vacated) = (self.reporter.clone(), self.vacated(service, release));
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
                let process = supervise_process(spec, verifier, stop, reporter);
                let process = once_vacated(vacated, process);
                let name = format!("the supervisor of {release}");
                (Some(critical::spawn(name, process.in_current_span())), None)
            }
            Runtime::Systemd(template) => {
                let owner = (service.name.as_str(), self.state_dir.as_path());
                let start_timeout = service.policy.start_timeout;
                let manager = self.manager.clone();
                let unit = Unit::new(manager, template, release, address, owner, start_timeout);
                let monitor = UnitMonitor::new(self.manager.clone(), unit.name());
                let (desired, desired_changes) = watch::channel(DesiredUnit::default());
                let (weight_state, has_full_weight) = watch::channel(true);
                let supervisor = UnitSupervisor {
                    unit,
                    monitor,
                    verifier,
                    release: release.number,
                    start,
                    stop,
                    desired: desired_changes,
                    has_full_weight: weight_state,
                    reporter,
                };
                let supervisor = once_vacated(vacated, supervisor.run()).in_current_span();
                let supervisor =
                    critical::spawn(format!("the supervisor of {release}"), supervisor);
                (Some(supervisor), Some(UnitControl { desired, has_full_weight }))
            }
        }
    }

    /// Sets the desired state of a release's unit, if it has one.
    pub(crate) fn set_desired(&self, release: ReleaseNumber, desired: DesiredUnit) {
        let unit = self.releases.get(&release).and_then(|tasks| tasks.unit.as_ref());
        if let Some(control) = unit {
            let set = |current: &mut _| std::mem::replace(current, desired) != desired;
            control.desired.send_if_modified(set);
        }
    }

    /// Probes faster, or at the configured interval again.
    pub(crate) fn set_fast_probing(&self, fast: bool) {
        self.fast_probing.send_if_modified(|current| std::mem::replace(current, fast) != fast);
    }

    /// Checks a new release until it is ready, then reports that with both contracts.
    pub(crate) fn check_readiness(
        &mut self,
        ticket: Ticket,
        service: &Arc<Service>,
        new: (&Release, &Address),
        active: Option<(&Release, &Address)>,
        proxy: Proxy,
    ) {
        let prober = |(release, address)| Prober::new(service, address, release);
        let (new_prober, active_prober) = (prober(new), active.map(prober));
        let (new_number, in_use) = (new.0.number, active.map(|(active, _)| active.number));
        let vacated = self.vacated(service, new.0);
        let (service, reporter) = (Arc::clone(service), self.reporter.clone());
        self.start_check(async move {
            let timeout = service.policy.start_timeout;
            let versions = || in_use.map(|it| proxy.protocol_versions(it)).unwrap_or_default();
            let readiness = wait_ready(new_prober, active_prober, &service, versions);
            let readiness = once_vacated(vacated, readiness);
            // The deadline of the phase has passed by then, so there is nothing to report.
            let Ok(readiness) = tokio::time::timeout(timeout, readiness).await else { return };
            let contracts = [(Some(new_number), &readiness.new), (in_use, &readiness.active)];
            for (number, contract) in contracts {
                if let (Some(number), Some(contract)) = (number, contract) {
                    proxy.set_listed(number, contract);
                }
            }
            reporter.event(Event::Ready(ticket, Box::new(readiness))).await;
        });
    }

    /// Probes a release once before a switch to it and verifies its artifact. Meanwhile its unit gets
    /// its full weights back, if systemd does that in time.
    pub(crate) fn probe_before_switch(
        &mut self,
        ticket: Ticket,
        service: &Service,
        Placement { release, address, verifier }: Placement<'_>,
    ) {
        let mut prober = Prober::new(service, address, release);
        let (number, reporter) = (release.number, self.reporter.clone());
        let unit = self.releases.get(&number).and_then(|tasks| tasks.unit.as_ref());
        let full_weight = unit.map(|control| control.has_full_weight.clone());
        let service = service.name.clone();
        self.start_check(async move {
            let (reply, verify_error, ()) = tokio::join!(
                prober.probe(),
                verify_artifact(verifier),
                wait_for_full_weight(full_weight, &service, number)
            );
            match verify_error {
                Some(error @ VerifyError::Unreadable { .. }) => {
                    reporter.verify_failed(number, error).await;
                }
                Some(error) => {
                    reporter.event(Event::ArtifactChanged(ticket, error.to_string())).await;
                }
                None => (),
            }
            reporter.event(Event::Probed(ticket, reply)).await;
            prober.close().await;
        });
    }

    /// Starts a check. It replaces the previous one, whose result is of no use any more.
    fn start_check(&mut self, check: impl Future<Output = ()> + Send + 'static) {
        let check = tokio::spawn(check.in_current_span());
        if let Some(previous) = self.current_check.replace(check) {
            previous.abort();
        }
    }

    /// Removes a release from the proxy, then stops it. A later release in its slot waits for that. What
    /// a drain cost goes into the timeline of `deploy`.
    pub(crate) fn retire(
        &mut self,
        service: &Arc<Service>,
        release: &Release,
        deploy: ReleaseNumber,
        proxy: Proxy,
    ) {
        let tasks = self.releases.remove(&release.number);
        let number = release.number;
        let runtime = SlotRuntime { manager: &self.manager, state_dir: &self.state_dir, service };
        // Without a supervisor it may still run, since before a crash.
        let orphans = tasks.is_none().then(|| runtime.stop_release(release));
        // Its sessions move to the active release, and open requests may finish. A new release may wait
        // for the slot, and needs most of its own time to start.
        let policy = &service.policy;
        let timeout = policy.drain_timeout.min(policy.start_timeout / 2);
        let (reporter, name) = (self.reporter.clone(), release.to_string());
        let stop = async move {
            if proxy.is_serving(number) {
                let cost = proxy.drain(number, timeout).await;
                reporter
                    .deploy_note(deploy, format!("{name} drained before it stops: {cost}"))
                    .await;
            }
            proxy.remove_release(number).await;
            if let Some(tasks) = tasks {
                tasks.stop().await;
            }
            if let Some(stop_orphans) = orphans {
                stop_orphans.await;
            }
        };
        self.stops.spawn(release.slot.clone(), stop);
    }

    /// Forgets a release whose slot another release uses by now: it does not stop what runs there,
    /// and open requests may finish.
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

    /// Stops processes and units that belong to none of the `needed` releases. A start in one of their
    /// slots waits for that; traffic does not.
    pub(crate) fn stop_unneeded(&mut self, service: &Arc<Service>, needed: &[&Release]) {
        let runtime = SlotRuntime { manager: &self.manager, state_dir: &self.state_dir, service };
        for (slot, stop) in runtime.stop_unneeded(needed) {
            self.stops.spawn(slot, stop);
        }
    }

    /// How long the processes of releases had run when this daemon started, where that is known.
    pub(crate) fn process_ages(&self, service: &Arc<Service>) -> BTreeMap<ReleaseNumber, Duration> {
        SlotRuntime { manager: &self.manager, state_dir: &self.state_dir, service }.process_ages()
    }

    /// Ends all tasks and leaves the releases running: another daemon adopts them.
    pub(crate) async fn detach_all(&mut self) {
        let mut tasks: Vec<_> = self.stops.take().collect();
        tasks.extend(self.current_check.take());
        for release in std::mem::take(&mut self.releases).into_values() {
            tasks.push(release.prober);
            tasks.extend(release.scraper.into_iter().chain(release.runtime));
        }
        tasks.iter().for_each(JoinHandle::abort);
        // A start that is under way is complete before the other daemon looks for it.
        for task in tasks {
            let _ = task.await;
        }
    }

    /// Stops all processes. Units go on: systemd runs them without a daemon, too.
    pub(crate) async fn stop(&mut self) {
        if let Some(check) = self.current_check.take() {
            check.abort();
        }
        let (units, processes): (Vec<_>, Vec<_>) = std::mem::take(&mut self.releases)
            .into_values()
            .partition(|tasks| tasks.unit.is_some());
        units.into_iter().for_each(ReleaseTasks::detach);
        processes.iter().for_each(|tasks| tasks.stop.cancel());
        for tasks in processes {
            tasks.stop().await;
        }
        for stopping in self.stops.take() {
            let _ = stopping.await;
        }
    }
}

impl ReleaseTasks {
    async fn stop(self) {
        self.stop.cancel();
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        if let Some(runtime) = self.runtime {
            let _ = runtime.await;
        }
    }

    /// Ends all tasks and leaves the release running.
    fn detach(self) {
        self.prober.abort();
        self.scraper.iter().for_each(JoinHandle::abort);
        self.runtime.iter().for_each(JoinHandle::abort);
    }
}

/// Waits until a throttled unit has its full weights again.
async fn wait_for_full_weight(
    full_weight: Option<watch::Receiver<bool>>,
    service: &str,
    release: ReleaseNumber,
) {
    let Some(mut full_weight) = full_weight else { return };
    let restored = full_weight.wait_for(|is_full| *is_full);
    if tokio::time::timeout(WEIGHT_RESTORE_TIMEOUT, restored).await.is_err() {
        // A throttled release still answers, which is better than the failing one.
        warn!(
            service,
            release = release.0,
            "systemd did not restore CPUWeight and IOWeight of the release's unit within {} ms: the \
             traffic moves to it all the same; see `systemctl show` of the unit",
            WEIGHT_RESTORE_TIMEOUT.as_millis()
        );
    }
}
