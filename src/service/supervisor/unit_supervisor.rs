//! The supervisor of a release that systemd runs. It starts the unit, follows its state, restarts it,
//! and sets its processor and disk weights.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::act::{RunIdentity, Unit};
use crate::artifact::{Verifier, VerifyError};
use crate::clock::{monotonic, time_since_boot};
use crate::model::ReleaseNumber;
use crate::service::supervisor::artifact_check::verify_before_start;
use crate::service::supervisor::backoff::Backoff;
use crate::service::supervisor::reporter::Reporter;
use crate::signal::{UnitEvent, UnitMonitor};
use crate::systemd::{ResourceWeights, UnitState};

/// Wait before the next attempt, after D-Bus did not answer.
const DBUS_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The desired state of a unit. It changes while the unit runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DesiredUnit {
    /// It serves no traffic: reduced processor and disk weights are enough.
    pub throttled: bool,
    /// An operator holds the service: a unit that an operator stopped stays stopped.
    pub held: bool,
}

/// What a supervisor does with what runs in the slot already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartPolicy {
    /// It takes over what runs.
    Adopt,
    /// It starts the release itself, and first stops anything else.
    MustStart,
}

/// The supervisor of one unit.
pub(super) struct UnitSupervisor {
    pub unit: Unit,
    pub monitor: UnitMonitor,
    pub verifier: Option<Verifier>,
    pub release: ReleaseNumber,
    pub start: StartPolicy,
    pub stop: CancellationToken,
    pub desired: watch::Receiver<DesiredUnit>,
    /// Whether the unit has its full weights.
    pub has_full_weight: watch::Sender<bool>,
    pub reporter: Reporter,
}

/// The progress of the unit, and the next start.
#[derive(Debug, Default)]
struct UnitProgress {
    /// When to start it.
    start_at: Option<Instant>,
    backoff: Backoff,
    /// Another party, such as an operator, stopped it.
    stopped_externally: bool,
    /// The last invocation that was recorded.
    invocation: String,
    weights: Option<WeightState>,
    bus_unavailable: bool,
}

/// The weights of a unit that was seen running.
#[derive(Debug)]
struct WeightState {
    /// Those of its configuration.
    configured: ResourceWeights,
    throttled: bool,
}

impl UnitSupervisor {
    /// Keeps the unit running until `stop` is cancelled, then stops it. A caller that wants the unit to
    /// go on aborts the task instead.
    pub(super) async fn run(mut self) {
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
                update = self.monitor.next() => match update {
                    Ok((state, events)) => self.on_unit_events(&mut progress, &state, events).await,
                    Err(error) => self.on_bus_unavailable(&mut progress, &error).await,
                },
            }
        }
        if let Err(error) = self.unit.stop().await {
            tracing::error!(unit = self.unit.name(), "{error}");
        }
    }

    /// Looks at what runs, and plans a start where the release does not run.
    async fn take_over_or_start(&mut self, progress: &mut UnitProgress) {
        let state = loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                update = self.monitor.next() => match update {
                    Ok((state, _)) => break state,
                    Err(error) if self.start == StartPolicy::MustStart => {
                        self.report_exit(format!("it was not started: {error}")).await;
                        self.wait_before_retry().await;
                    }
                    Err(error) => self.on_bus_unavailable(progress, &error).await,
                },
            }
        };
        let identity = self.unit.identify_run(&state);
        if !state.is_up() || self.start == StartPolicy::MustStart && identity != RunIdentity::This {
            if state.is_up() {
                let unit = self.unit.name();
                tracing::warn!(unit, "stopping what runs in the slot: it is not this release");
                self.warn_on_error(self.unit.stop().await);
            }
            progress.start_at = Some(monotonic());
            return;
        }
        progress.backoff.started();
        // Until now it counts as starting, as after a boot.
        if self.start == StartPolicy::Adopt
            && let Some(age) = run_age(&state)
        {
            self.reporter.release_started(self.release, age).await;
        }
        self.start = StartPolicy::Adopt;
        if identity == RunIdentity::Foreign {
            let description = "was started by another party while no daemon ran";
            self.on_external_start(&state, description).await;
        }
        self.unit.record_run(&state);
        progress.invocation = state.invocation_id.clone();
        self.apply_weights(progress, &state).await;
    }

    /// Another party started it: the same program, or a different one.
    async fn on_external_start(&self, state: &UnitState, description: &str) {
        let changed = match (self.unit.program_change(state), &self.verifier) {
            (None, Some(verifier)) => match verifier.verify().await {
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
                progress.backoff.started();
                self.start = StartPolicy::Adopt;
                self.monitor.set_known_state(state.clone());
                self.apply_weights(progress, &state).await;
                if let Some(changed) = changed {
                    self.report_replaced(changed).await;
                }
                // It may have exited already, which no later state change reports.
                if !state.is_up() {
                    self.report_exit(self.monitor.describe_end(&state)).await;
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
                        true => "it stays stopped, because the service is held",
                        false => "restarting it, because it is needed; a hold keeps it stopped",
                    };
                    let name = self.unit.name();
                    self.report_note(format!("{name} was stopped by another party: {next}")).await;
                    self.reporter.release_started(self.release, Duration::ZERO).await;
                }
                UnitEvent::Started => {
                    progress.stopped_externally = false;
                    progress.backoff.started();
                    self.on_external_start(state, "was started by another party").await;
                    self.reporter.release_started(self.release, Duration::ZERO).await;
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
            progress.start_at = Some(monotonic());
        }
        let throttled = self.desired.borrow().throttled;
        if let Some(weights) = &mut progress.weights
            && weights.throttled != throttled
        {
            weights.throttled = throttled;
            let configured = weights.configured;
            self.warn_on_error(self.unit.apply_weights(throttled, configured).await);
            self.has_full_weight.send_replace(!throttled);
        }
    }

    /// Reads the configured weights when the unit is first seen running, and applies the desired ones.
    async fn apply_weights(&mut self, progress: &mut UnitProgress, state: &UnitState) {
        if progress.weights.is_some() {
            return;
        }
        let configured = self.unit.configured_weights(state);
        let throttled = self.desired.borrow().throttled;
        progress.weights = Some(WeightState { configured, throttled });
        if throttled || state.weights != configured {
            self.warn_on_error(self.unit.apply_weights(throttled, configured).await);
        }
        self.has_full_weight.send_replace(!throttled);
    }

    /// D-Bus does not answer. The release may still run; its probes show that.
    async fn on_bus_unavailable(&mut self, progress: &mut UnitProgress, error: &str) {
        if !std::mem::replace(&mut progress.bus_unavailable, true) {
            tracing::error!(unit = self.unit.name(), "cannot follow the unit: {error}");
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
        self.reporter.exit(self.release, reason).await;
    }

    async fn report_replaced(&self, changed: String) {
        self.reporter.release_replaced(self.release, changed).await;
    }

    async fn report_note(&self, text: String) {
        self.reporter.release_note(self.release, text).await;
    }
}

impl UnitProgress {
    /// Plans the next start.
    fn schedule_restart(&mut self) {
        self.start_at = Some(monotonic() + self.backoff.schedule());
    }
}

/// How long ago the main process of a unit started; `None` where systemd does not say.
fn run_age(state: &UnitState) -> Option<Duration> {
    let started = (0 < state.started_monotonic_us).then_some(state.started_monotonic_us)?;
    Some(time_since_boot().saturating_sub(Duration::from_micros(started)))
}
