//! A release that systemd runs: kept running, followed, and given its share of the host.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::{RunIdentity, Unit};
use crate::artifact::{Verifier, VerifyError};
use crate::model::{Observation, ReleaseNumber, Signal};
use crate::service::inbox::ServiceMessage;
use crate::service::supervisor::probe_tasks::verify_before_start;
use crate::service::supervisor::release_supervisor::{
    RESTART_DELAY_MAX, RESTART_DELAY_MIN, STABLE_AFTER,
};
use crate::signal::{UnitEvent, UnitMonitor};
use crate::systemd::{ResourceWeights, UnitState};

/// Wait before D-Bus is asked again that did not answer.
const DBUS_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a release wants of the one who keeps its unit. Changed while it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DesiredUnit {
    /// It serves nobody and may get little of processor and disk.
    pub throttled: bool,
    /// A person holds the service: what a person stopped stays down.
    pub held: bool,
}

/// The keeper of one unit.
pub(crate) struct UnitSupervisor {
    pub unit: Unit,
    pub watcher: UnitMonitor,
    pub verifier: Option<Verifier>,
    pub release: ReleaseNumber,
    /// It has to be started by us; what else runs in the slot has to go.
    pub must_start: bool,
    pub stop: CancellationToken,
    pub desired: watch::Receiver<DesiredUnit>,
    /// Tells whether the unit has its full share.
    pub has_full_weight: watch::Sender<bool>,
    pub inbox: mpsc::Sender<ServiceMessage>,
}

/// What is known of the unit, and what is to be done next.
#[derive(Debug, Default)]
struct UnitProgress {
    /// When to start it.
    start_at: Option<Instant>,
    delay: Duration,
    /// Since when it runs.
    running_since: Option<Instant>,
    /// A person stopped it.
    stopped_externally: bool,
    /// The run that was last written down.
    invocation: String,
    /// The weights that it has by itself, and whether it has less now.
    weight_state: Option<(ResourceWeights, bool)>,
    bus_unavailable: bool,
}

impl UnitSupervisor {
    /// Keeps the unit running until told to stop; then stops it. To leave it running, the task is
    /// aborted.
    pub(crate) async fn run(mut self, predecessor: Option<JoinHandle<()>>) {
        if let Some(predecessor) = predecessor {
            let _ = predecessor.await;
        }
        let mut progress = UnitProgress::default();
        self.take_over_or_start(&mut progress).await;
        while !self.stop.is_cancelled() {
            let start_at = progress.start_at;
            let start = async {
                match start_at {
                    Some(start_at) => tokio::time::sleep_until(start_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => (),
                () = start => self.start(&mut progress).await,
                changed = self.desired.changed() => match changed {
                    Ok(()) => self.on_desired_changed(&mut progress).await,
                    Err(_) => return,
                },
                update = self.watcher.next() => match update {
                    Ok((state, events)) => self.on_unit_events(&mut progress, &state, events).await,
                    Err(error) => self.on_bus_unavailable(&mut progress, &error).await,
                },
            }
        }
        if let Err(error) = self.unit.stop().await {
            tracing::error!(unit = self.unit.name(), "{error}");
        }
    }

    /// Finds out what runs, and starts what has to run.
    async fn take_over_or_start(&mut self, progress: &mut UnitProgress) {
        let state = loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                update = self.watcher.next() => match update {
                    Ok((state, _)) => break state,
                    Err(error) if self.must_start => {
                        self.report_exit(format!("it was not started: {error}")).await;
                        self.wait_before_retry().await;
                    }
                    Err(error) => self.on_bus_unavailable(progress, &error).await,
                },
            }
        };
        let identity = self.unit.identify_run(&state);
        if !state.is_up() || self.must_start && identity != RunIdentity::This {
            if state.is_up() {
                let unit = self.unit.name();
                tracing::warn!(unit, "stops what runs there: it is not the release");
                self.warn_on_error(self.unit.stop().await);
            }
            progress.start_at = Some(Instant::now());
            return;
        }
        progress.running_since = Some(Instant::now());
        self.must_start = false;
        if identity == RunIdentity::Foreign {
            self.on_external_start(&state, "was started by somebody else while nobody watched")
                .await;
        }
        self.unit.record_run(&state);
        progress.invocation = state.invocation_id.clone();
        self.apply_weights(progress, &state).await;
    }

    /// Somebody else started it: the same program, or another one?
    async fn on_external_start(&self, state: &UnitState, description: &str) {
        let changed = match (self.unit.program_change(state), &self.verifier) {
            (None, Some(seal)) => match seal.verify().await {
                Err(error @ VerifyError::Changed { .. }) => Some(error.to_string()),
                _ => None,
            },
            (changed, _) => changed,
        };
        match changed {
            Some(changed) => self.report_replaced(changed).await,
            None => self.report_note(format!("{} {description}", self.unit.name())).await,
        }
    }

    async fn start(&mut self, progress: &mut UnitProgress) {
        progress.start_at = None;
        if progress.stopped_externally && self.desired.borrow().held {
            return;
        }
        progress.stopped_externally = false;
        let result = tokio::select! {
            started = self.try_start() => started,
            () = self.stop.cancelled() => return,
        };
        match result {
            Ok((state, changed)) => {
                progress.invocation.clone_from(&state.invocation_id);
                progress.running_since = Some(Instant::now());
                self.must_start = false;
                self.watcher.set_known_state(state.clone());
                self.apply_weights(progress, &state).await;
                if let Some(changed) = changed {
                    self.report_replaced(changed).await;
                }
                // It may have died in between: nobody else tells.
                if !state.is_up() {
                    self.report_exit(self.watcher.describe_end(&state)).await;
                    progress.schedule_restart();
                }
            }
            Err(error) => {
                self.report_exit(format!("it was not started: {error}")).await;
                progress.schedule_restart();
            }
        }
    }

    async fn try_start(&self) -> Result<(UnitState, Option<String>), String> {
        verify_before_start(self.verifier.as_ref()).await?;
        self.unit.start().await
    }

    async fn on_unit_events(
        &mut self,
        progress: &mut UnitProgress,
        state: &UnitState,
        events: Vec<UnitEvent>,
    ) {
        progress.bus_unavailable = false;
        for event in events {
            match event {
                UnitEvent::Died(reason) => {
                    self.report_exit(reason).await;
                }
                UnitEvent::Stopped => {
                    progress.stopped_externally = true;
                    let next = match self.desired.borrow().held {
                        true => "the service is held, so it stays down",
                        false => "it is needed, and is started again; a hold keeps it down",
                    };
                    let name = self.unit.name();
                    self.report_note(format!("{name} was stopped by somebody else: {next}")).await;
                }
                UnitEvent::Started => {
                    progress.stopped_externally = false;
                    progress.running_since = Some(Instant::now());
                    self.on_external_start(state, "was started again by somebody else").await;
                }
            }
        }
        if state.is_up() {
            progress.start_at = None;
            if progress.invocation != state.invocation_id {
                progress.invocation.clone_from(&state.invocation_id);
                self.unit.record_run(state);
            }
            self.apply_weights(progress, state).await;
        } else if state.is_down()
            && progress.start_at.is_none()
            && !(progress.stopped_externally && self.is_held())
        {
            progress.schedule_restart();
        }
    }

    async fn on_desired_changed(&mut self, progress: &mut UnitProgress) {
        if progress.stopped_externally && !self.is_held() && progress.start_at.is_none() {
            progress.start_at = Some(Instant::now());
        }
        let throttled = self.desired.borrow().throttled;
        if let Some((default_weights, is_low)) = &mut progress.weight_state
            && *is_low != throttled
        {
            *is_low = throttled;
            let weights = *default_weights;
            self.warn_on_error(self.unit.apply_weights(throttled, weights).await);
            self.has_full_weight.send_replace(!throttled);
        }
    }

    /// The first time that it is seen to run: what it has by itself, and what it may have now.
    async fn apply_weights(&mut self, progress: &mut UnitProgress, state: &UnitState) {
        if progress.weight_state.is_some() {
            return;
        }
        let (default_weights, throttled) =
            (self.unit.configured_weights(state), self.desired.borrow().throttled);
        progress.weight_state = Some((default_weights, throttled));
        if throttled || state.weights != default_weights {
            self.warn_on_error(self.unit.apply_weights(throttled, default_weights).await);
        }
        self.has_full_weight.send_replace(!throttled);
    }

    /// D-Bus does not answer. The release may run all the same: its probes tell.
    async fn on_bus_unavailable(&mut self, progress: &mut UnitProgress, error: &str) {
        if !std::mem::replace(&mut progress.bus_unavailable, true) {
            tracing::error!(unit = self.unit.name(), "the unit is not followed: {error}");
        }
        self.wait_before_retry().await;
    }

    async fn wait_before_retry(&self) {
        tokio::select! {
            () = self.stop.cancelled() => (),
            () = tokio::time::sleep(DBUS_RETRY_DELAY) => (),
        }
    }

    fn is_held(&self) -> bool {
        self.desired.borrow().held
    }

    fn warn_on_error(&self, result: Result<(), String>) {
        if let Err(error) = result {
            tracing::warn!(unit = self.unit.name(), "{error}");
        }
    }

    async fn report_exit(&self, reason: String) {
        let signal = Signal { release: self.release, observation: Observation::Exited(reason) };
        let _ = self.inbox.send(ServiceMessage::Signal(signal)).await;
    }

    async fn report_replaced(&self, changed: String) {
        let _ = self.inbox.send(ServiceMessage::ReleaseReplaced(self.release, changed)).await;
    }

    async fn report_note(&self, text: String) {
        let _ = self.inbox.send(ServiceMessage::ReleaseNote(self.release, text)).await;
    }
}

impl UnitProgress {
    /// Plans the next start: at once, then after ever longer waits.
    fn schedule_restart(&mut self) {
        let was_stable =
            self.running_since.take().is_some_and(|since| STABLE_AFTER <= since.elapsed());
        let delay = if was_stable { Duration::ZERO } else { self.delay };
        self.start_at = Some(Instant::now() + delay);
        self.delay = (delay * 2).clamp(RESTART_DELAY_MIN, RESTART_DELAY_MAX);
    }
}
