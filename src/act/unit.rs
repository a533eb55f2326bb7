//! A release that runs as a systemd unit: one instance of a template per slot.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::environment;
use crate::act::address_check;
use crate::act::unit_env_file::UnitEnvFile;
use crate::config::{Address, UnitTemplate};
use crate::model::{Release, ReleaseNumber, Slot};
use crate::systemd::{ResourceWeights, SystemdManager, UnitState};

/// The unit of a release in its slot, an instance of the configured template.
#[derive(Debug, Clone)]
pub struct Unit {
    systemd: SystemdManager,
    name: String,
    number: ReleaseNumber,
    address: Address,
    variables: BTreeMap<String, String>,
    env_file: UnitEnvFile,
    start_timeout: Duration,
    stop_timeout: Duration,
    warm_weight: u64,
}

/// Whose run of a unit this is, according to the environment file of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunIdentity {
    /// The run of this release.
    This,
    /// A recorded run of another release.
    Earlier,
    /// A run that no rollbackd started.
    Foreign,
}

/// Checks that systemd knows the unit of a slot, and that the unit reads the environment file of its slot.
/// Returns what it is, in a sentence. `of`: the service and the state directory.
///
/// # Errors
/// What is wrong, and what to do; or systemd does not answer.
pub async fn check_unit(
    systemd: &SystemdManager,
    template: &UnitTemplate,
    slot: &Slot,
    of: (&str, &Path),
) -> Result<String, String> {
    let name = template.unit_of(slot);
    let state = systemd.unit_state(&name).await?;
    if state.load_state != "loaded" {
        return Err(format!(
            "{name} is {}; install {}, then `systemctl daemon-reload`",
            state.load_state, template.unit
        ));
    }
    let (service, state_dir) = of;
    ensure_environment_is_read(&name, &state, &UnitEnvFile::for_slot(state_dir, service, &slot.0))?;
    Ok(format!("unit: {name} reads the environment of its slot"))
}

/// Without the file every slot would be the same release.
fn ensure_environment_is_read(
    name: &str,
    state: &UnitState,
    env_file: &UnitEnvFile,
) -> Result<(), String> {
    let path = env_file.path.display().to_string();
    if state.load_state != "loaded" || state.environment_files.contains(&path) {
        return Ok(());
    }
    let general = env_file.path.with_file_name("%i.env");
    Err(format!(
        "{name} does not read {path}, so every slot would be the same release; add \
         EnvironmentFile={} to [Service] of the template, then `systemctl daemon-reload`",
        general.display()
    ))
}

impl Unit {
    /// The unit of a release. `start_timeout` limits a start. Nothing starts yet.
    pub fn new(
        systemd: SystemdManager,
        template: &UnitTemplate,
        release: &Release,
        address: &Address,
        (service, state_dir): (&str, &Path),
        start_timeout: Duration,
    ) -> Self {
        Self {
            systemd,
            name: template.unit_of(&release.slot),
            number: release.number,
            address: address.clone(),
            variables: environment::release_variables(&template.env, release, address, service),
            env_file: UnitEnvFile::for_slot(state_dir, service, &release.slot.0),
            start_timeout,
            stop_timeout: template.stop_timeout,
            warm_weight: template.warm_weight,
        }
    }

    /// Whether rollbackd ever started the unit of this slot.
    pub fn was_started(state_dir: &Path, service: &str, slot: &Slot) -> bool {
        UnitEnvFile::for_slot(state_dir, service, &slot.0)
            .read()
            .is_some_and(|it| it.number.is_some())
    }

    /// Its name, such as `mcp-weather@blue.service`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose run `state` describes.
    pub fn identify_run(&self, state: &UnitState) -> RunIdentity {
        let Some(recorded) = self.env_file.read() else { return RunIdentity::Foreign };
        if recorded.invocation_id.as_ref().is_some_and(|it| *it == state.invocation_id) {
            let this_release = recorded.number == Some(self.number);
            return if this_release { RunIdentity::This } else { RunIdentity::Earlier };
        }
        match recorded.number == Some(self.number) && recorded.written_at_us <= state.started_at_us
        {
            true => RunIdentity::This,
            false => RunIdentity::Foreign,
        }
    }

    /// How the command line differs from that of the recorded run, if it does.
    pub fn program_change(&self, state: &UnitState) -> Option<String> {
        let before = self.env_file.read()?.program?;
        (before != state.exec_start).then(|| {
            let (before, now) = (before.join(" "), state.exec_start.join(" "));
            format!("{} ran {before:?}, and now runs {now:?}", self.name)
        })
    }

    /// Records that this run is the release's, for the next daemon. Needs tokio's multi-thread
    /// runtime, as does [`Self::start`].
    pub fn record_run(&self, state: &UnitState) {
        let weights = self.configured_weights(state);
        let write = || self.env_file.write(&self.variables, weights, Some(state));
        if let Err(error) = tokio::task::block_in_place(write) {
            let path = self.env_file.path.display();
            tracing::warn!("failed to write {path}: {error}; {} continues to run", self.name);
        }
    }

    /// Writes the environment file and starts the unit. Returns its state, and how its command line
    /// differs from the last run of the same release, if it does.
    ///
    /// # Errors
    /// Why it did not start, and what to do about it.
    pub async fn start(&self) -> Result<(UnitState, Option<String>), String> {
        let state = self.systemd.unit_state(&self.name).await?;
        ensure_environment_is_read(&self.name, &state, &self.env_file)?;
        let path = self.env_file.path.display();
        address_check::ensure_free(&self.address)?;
        let restarts_same_release =
            self.env_file.read().is_some_and(|it| it.number == Some(self.number));
        let change = if restarts_same_release { self.program_change(&state) } else { None };
        let weights = self.configured_weights(&state);
        let write = || self.env_file.write(&self.variables, weights, None);
        if let Err(error) = tokio::task::block_in_place(write) {
            let why = format!("failed to write {path}: {error}");
            // A full disk does not prevent a restart of the same release: its file is still valid.
            if !restarts_same_release {
                return Err(why);
            }
            tracing::warn!("{why}; {} starts with the file of its last start", self.name);
        }
        if state.active_state == "failed" {
            self.systemd.reset(&self.name).await?;
        }
        let started = self.systemd.start(&self.name, self.start_timeout).await;
        let state = self.systemd.unit_state(&self.name).await?;
        self.record_run(&state);
        started.map(|()| (state, change))
    }

    /// Stops the unit, and waits until none of its processes runs.
    ///
    /// # Errors
    /// The reason of systemd, or that the stop took longer than `stop_timeout`.
    pub async fn stop(&self) -> Result<(), String> {
        self.systemd.stop(&self.name, self.stop_timeout).await
    }

    /// Lowers the unit's share of processor and disk while the release is warm, or restores the
    /// configured share.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or denies the call.
    pub async fn apply_weights(
        &self,
        throttled: bool,
        configured: ResourceWeights,
    ) -> Result<(), String> {
        let low = |weight: Option<u64>| Some(self.warm_weight.min(weight.unwrap_or(100)));
        let weights = match throttled {
            true => ResourceWeights { cpu: low(configured.cpu), io: low(configured.io) },
            false => configured,
        };
        self.systemd.set_weights(&self.name, weights).await
    }

    /// The weights that the unit file sets. Until the next boot systemd reports the weights that the
    /// daemon set instead, and only the environment file has the original ones.
    pub fn configured_weights(&self, state: &UnitState) -> ResourceWeights {
        let known = self.env_file.read().and_then(|written| written.weights);
        let configured = |now: Option<u64>, known: Option<Option<u64>>| match known {
            Some(known) if now == Some(self.warm_weight) => known,
            _ => now,
        };
        ResourceWeights {
            cpu: configured(state.weights.cpu, known.map(|it| it.cpu)),
            io: configured(state.weights.io, known.map(|it| it.io)),
        }
    }
}
