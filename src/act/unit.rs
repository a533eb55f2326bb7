use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::environment;
use crate::act::address_check;
use crate::act::unit_env_file::UnitEnvFile;
use crate::config::{Address, UnitTemplate};
use crate::model::{Release, ReleaseNumber, Slot};
use crate::systemd::{ResourceWeights, SystemdManager, UnitState};

/// A release that systemd runs in its slot, as an instance of a template.
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

/// What is known of the run of a unit, from the file of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunIdentity {
    /// It was started for this release.
    This,
    /// It was seen before, in the name of another release.
    Earlier,
    /// Nobody of ours started it.
    Foreign,
}

impl Unit {
    /// The unit of a release. `start_timeout` is how long a start may take. Nothing happens yet.
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

    /// Whether a daemon of ours has ever started the unit of this slot.
    pub fn was_started(state_dir: &Path, service: &str, slot: &Slot) -> bool {
        UnitEnvFile::for_slot(state_dir, service, &slot.0)
            .read()
            .is_some_and(|it| it.number.is_some())
    }

    /// Its name, such as `mcp-weather@blue.service`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of the run that `state` tells of.
    pub fn identify_run(&self, state: &UnitState) -> RunIdentity {
        let Some(recorded) = self.env_file.read() else { return RunIdentity::Foreign };
        if recorded.invocation_id.as_ref().is_some_and(|runs| *runs == state.invocation_id) {
            let ours = recorded.number == Some(self.number);
            return if ours { RunIdentity::This } else { RunIdentity::Earlier };
        }
        match recorded.number == Some(self.number) && recorded.written_at_us <= state.started_at_us
        {
            true => RunIdentity::This,
            false => RunIdentity::Foreign,
        }
    }

    /// What is another than in the run that was seen before: the program, or its arguments.
    pub fn program_change(&self, state: &UnitState) -> Option<String> {
        let before = self.env_file.read()?.program?;
        (before != state.exec_start).then(|| {
            let (before, now) = (before.join(" "), state.exec_start.join(" "));
            format!("{} ran {before:?}, and now runs {now:?}", self.name)
        })
    }

    /// Remembers that this run is the release's, for a daemon after us. Needs tokio's runtime of
    /// several threads, as does [`Self::start_timeout`].
    pub fn record_run(&self, state: &UnitState) {
        let weights = self.configured_weights(state);
        let write = || self.env_file.write(&self.variables, weights, Some(state));
        if let Err(error) = tokio::task::block_in_place(write) {
            let path = self.env_file.path.display();
            tracing::warn!("failed to write {path}: {error}; {} goes on", self.name);
        }
    }

    /// Writes down what it starts with, starts it, and tells how it stands then; and in what it is
    /// another than the release was before, where it is one.
    ///
    /// # Errors
    /// Why it was not started, and what to do about it.
    pub async fn start(&self) -> Result<(UnitState, Option<String>), String> {
        let state = self.systemd.unit_state(&self.name).await?;
        let path = self.env_file.path.display().to_string();
        if state.load_state == "loaded" && !state.environment_files.contains(&path) {
            let general = self.env_file.path.with_file_name("%i.env");
            return Err(format!(
                "{} does not read {path}, so every slot would be the same release; add \
                 EnvironmentFile={} to [Service] of the template, then `systemctl daemon-reload`",
                self.name,
                general.display()
            ));
        }
        address_check::free(&self.address)?;
        let restarts_same_release =
            self.env_file.read().is_some_and(|it| it.number == Some(self.number));
        let change = if restarts_same_release { self.program_change(&state) } else { None };
        let weights = self.configured_weights(&state);
        let write = || self.env_file.write(&self.variables, weights, None);
        if let Err(error) = tokio::task::block_in_place(write) {
            let why = format!("failed to write {path}: {error}");
            // On a full disk, say. What it was started with the last time is good for it now.
            if !restarts_same_release {
                return Err(why);
            }
            tracing::warn!("{why}; {} starts with what is written there", self.name);
        }
        if state.active_state == "failed" {
            self.systemd.reset(&self.name).await?;
        }
        let started = self.systemd.start(&self.name, self.start_timeout).await;
        let state = self.systemd.unit_state(&self.name).await?;
        self.record_run(&state);
        started.map(|()| (state, change))
    }

    /// Stops it, and waits until nothing of it runs.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `stop_timeout`.
    pub async fn stop(&self) -> Result<(), String> {
        self.systemd.stop(&self.name, self.stop_timeout).await
    }

    /// Gives it little of processor and disk while it only waits, or what it had before.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or does not let us.
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

    /// The weights that it has by itself. What we gave it shows in their place until the next boot,
    /// also to the next daemon: only the file tells then what they were.
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
