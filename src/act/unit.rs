use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::unit_file::UnitFile;
use super::{environment, place};
use crate::bus::{Bus, State, Weights};
use crate::config::{Address, Template};
use crate::model::{Number, Release, Slot};

/// A release that systemd runs in its slot, as an instance of a template.
#[derive(Debug, Clone)]
pub struct Unit {
    bus: Bus,
    name: String,
    number: Number,
    address: Address,
    variables: BTreeMap<String, String>,
    file: UnitFile,
    start: Duration,
    stop: Duration,
    warm: u64,
}

/// What is known of the run of a unit, from the file of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It was started for this release.
    Ours,
    /// It was seen before, in the name of another release.
    Known,
    /// Nobody of ours started it.
    Strange,
}

impl Unit {
    /// The unit of a release. `start` is how long a start may take. Nothing happens yet.
    pub fn new(
        bus: Bus,
        template: &Template,
        release: &Release,
        address: &Address,
        (service, state_dir): (&str, &Path),
        start: Duration,
    ) -> Self {
        Self {
            bus,
            name: template.instance(&release.slot),
            number: release.number,
            address: address.clone(),
            variables: environment::variables(&template.env, release, address, service),
            file: UnitFile::of(state_dir, service, &release.slot.0),
            start,
            stop: template.stop,
            warm: template.warm_weight,
        }
    }

    /// Whether a daemon of ours has ever started the unit of this slot.
    pub fn was_started(state_dir: &Path, service: &str, slot: &Slot) -> bool {
        UnitFile::of(state_dir, service, &slot.0).read().is_some_and(|it| it.number.is_some())
    }

    /// Its name, such as `mcp-weather@blue.service`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of the run that `state` tells of.
    pub fn knows(&self, state: &State) -> Run {
        let Some(written) = self.file.read() else { return Run::Strange };
        if written.runs.as_ref().is_some_and(|runs| *runs == state.invocation) {
            let ours = written.number == Some(self.number);
            return if ours { Run::Ours } else { Run::Known };
        }
        match written.number == Some(self.number) && written.at <= state.started {
            true => Run::Ours,
            false => Run::Strange,
        }
    }

    /// What is another than in the run that was seen before: the program, or its arguments.
    pub fn changed(&self, state: &State) -> Option<String> {
        let before = self.file.read()?.program?;
        (before != state.program).then(|| {
            let (before, now) = (before.join(" "), state.program.join(" "));
            format!("{} ran {before:?}, and now runs {now:?}", self.name)
        })
    }

    /// Remembers that this run is the release's, for a daemon after us. Needs tokio's runtime of
    /// several threads, as does [`Self::start`].
    pub fn own(&self, state: &State) {
        let weights = self.own_weights(state);
        let write = || self.file.write(&self.variables, weights, Some(state));
        if let Err(error) = tokio::task::block_in_place(write) {
            let path = self.file.path.display();
            tracing::warn!("failed to write {path}: {error}; {} goes on", self.name);
        }
    }

    /// Writes down what it starts with, starts it, and tells how it stands then; and in what it is
    /// another than the release was before, where it is one.
    ///
    /// # Errors
    /// Why it was not started, and what to do about it.
    pub async fn start(&self) -> Result<(State, Option<String>), String> {
        let state = self.bus.state(&self.name).await?;
        let path = self.file.path.display().to_string();
        if state.load == "loaded" && !state.reads.contains(&path) {
            let general = self.file.path.with_file_name("%i.env");
            return Err(format!(
                "{} does not read {path}, so every slot would be the same release; add \
                 EnvironmentFile={} to [Service] of the template, then `systemctl daemon-reload`",
                self.name,
                general.display()
            ));
        }
        place::free(&self.address)?;
        let again = self.file.read().is_some_and(|it| it.number == Some(self.number));
        let changed = if again { self.changed(&state) } else { None };
        let weights = self.own_weights(&state);
        let write = || self.file.write(&self.variables, weights, None);
        if let Err(error) = tokio::task::block_in_place(write) {
            let why = format!("failed to write {path}: {error}");
            // On a full disk, say. What it was started with the last time is good for it now.
            if !again {
                return Err(why);
            }
            tracing::warn!("{why}; {} starts with what is written there", self.name);
        }
        if state.active == "failed" {
            self.bus.reset(&self.name).await?;
        }
        let started = self.bus.start(&self.name, self.start).await;
        let state = self.bus.state(&self.name).await?;
        self.own(&state);
        started.map(|()| (state, changed))
    }

    /// Stops it, and waits until nothing of it runs.
    ///
    /// # Errors
    /// What systemd says against it, or that it took longer than `stop_timeout`.
    pub async fn stop(&self) -> Result<(), String> {
        self.bus.stop(&self.name, self.stop).await
    }

    /// Gives it little of processor and disk while it only waits, or what it had before.
    ///
    /// # Errors
    /// D-Bus or systemd does not answer, or does not let us.
    pub async fn weigh(&self, waits: bool, before: Weights) -> Result<(), String> {
        let low = |weight: Option<u64>| Some(self.warm.min(weight.unwrap_or(100)));
        let weights = match waits {
            true => Weights { cpu: low(before.cpu), io: low(before.io) },
            false => before,
        };
        self.bus.weigh(&self.name, weights).await
    }

    /// The weights that it has by itself. What we gave it shows in their place until the next boot,
    /// also to the next daemon: only the file tells then what they were.
    pub fn own_weights(&self, state: &State) -> Weights {
        let known = self.file.read().and_then(|written| written.weights);
        let own = |now: Option<u64>, known: Option<Option<u64>>| match known {
            Some(known) if now == Some(self.warm) => known,
            _ => now,
        };
        Weights {
            cpu: own(state.weights.cpu, known.map(|it| it.cpu)),
            io: own(state.weights.io, known.map(|it| it.io)),
        }
    }
}
