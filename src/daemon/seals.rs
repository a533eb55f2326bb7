//! The artifacts of the releases that are needed: sealed at their deploy, and looked at again.

use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::mpsc;

use crate::artifact::{self, Doubt, Podman, Seal};
use crate::config::Service;
use crate::model::{Command, Decision, Fact, Moment, Number, Order, Release, Reply};

use super::input::{Input, Told, Untaken};
use super::keeper::Keeper;

/// The seals of one service's releases.
#[derive(Debug)]
pub(super) struct Seals {
    podman: Option<Podman>,
    all: BTreeMap<Number, Seal>,
}

impl Seals {
    /// None yet; `podman` is the socket that is asked of images.
    pub(super) fn new(podman: &Path) -> Self {
        let podman = Podman::new(podman).inspect_err(|why| tracing::warn!("no podman: {why}"));
        Self { podman: podman.ok(), all: BTreeMap::new() }
    }

    /// The seal of a release, if its artifact has a digest.
    pub(super) fn of(&mut self, release: &Release) -> Option<Seal> {
        if let Some(seal) = self.all.get(&release.number) {
            return Some(seal.clone());
        }
        let (artifact, digest) = (release.artifact.as_ref()?, release.digest.as_ref()?);
        // One that a daemon of another version wrote is not known here, and not checked.
        let seal = Seal::new(artifact, digest.parse().ok()?, self.podman.clone());
        self.all.insert(release.number, seal.clone());
        Some(seal)
    }

    pub(super) fn forget(&mut self, number: Number) {
        self.all.remove(&number);
    }

    /// Keeps the image of a new release from being pruned, and lets those of old ones go.
    fn pin(&self, service: &Service, release: &Release, needed: Vec<Number>) {
        let Some((podman, artifact)) = self.podman.clone().zip(release.artifact.clone()) else {
            return;
        };
        let Some(digest) = release.digest.as_ref().filter(|_| !artifact.starts_with('/')) else {
            return;
        };
        tracing::info!(service = service.name, %release, "{artifact} is pinned: {digest}");
        let (name, number, kept) = (service.name.clone(), release.number, service.keep_artifacts);
        tokio::spawn(async move {
            if let Err(why) = podman.pin(&name, number, &artifact).await {
                tracing::error!(service = name, "a prune may take the image: {why}");
            }
            let latest = (0..kept).filter_map(|back| number.0.checked_sub(back)).map(Number);
            let keep: Vec<_> = needed.into_iter().chain(latest).collect();
            match podman.let_go(&name, &keep).await {
                Ok(gone) if gone.is_empty() => (),
                Ok(gone) => {
                    let gone: Vec<_> = gone.iter().map(ToString::to_string).collect();
                    let gone = gone.join(", ");
                    tracing::info!(service = name, "images of deploys {gone} are no longer pinned");
                }
                Err(why) => tracing::warn!(service = name, "old images stay pinned: {why}"),
            }
        });
    }
}

impl Keeper {
    /// A command. A deploy has its artifact looked at first, which may take long; what would be
    /// refused anyway is refused at once.
    pub(super) fn order(&mut self, now: Moment, order: Order, told: Told) {
        let Some(named) = artifact_of(&order) else { return self.ordered(now, order, None, told) };
        if let Err(refusal) = self.watch.order(now, order.clone()) {
            let _ = told.send(Err(Untaken::Refused(refusal)));
            return;
        }
        let (kind, podman) = (self.service.artifact, self.seals.podman.clone());
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            match artifact::find(kind, &named, podman.as_ref()).await {
                // Whoever asked left while it was read, and does not know that it would go on.
                Ok(_) if told.is_closed() => (),
                Ok(found) => {
                    let order = sealed(order, &found);
                    let _ = outbox.send(Input::Sealed(order, found.seal, told)).await;
                }
                Err(why) => _ = told.send(Err(Untaken::Unfit(why))),
            }
        });
    }

    /// A command of which everything is known.
    pub(super) fn ordered(&mut self, now: Moment, order: Order, seal: Option<Seal>, told: Told) {
        let forced = matches!(&order.command, Command::Deploy(deploy) if deploy.force);
        let answers = |number| self.probes.get(&number).map(Reply::is_ok);
        let decided = self.watch.order(now, order).and_then(|decision| {
            let spared = if forced { Ok(()) } else { self.watch.spares(&decision, answers) };
            spared.map(|()| decision)
        });
        let entry = match decided {
            Ok(decision) => {
                let new = brings(&decision);
                if let Some((release, seal)) = new.as_ref().zip(seal) {
                    self.seals.all.insert(release.number, seal);
                }
                let entry = self.commit(decision).map_err(Untaken::Unwritten);
                if let Some(release) = new.filter(|_| entry.is_ok()) {
                    let needed = self.watch.phase().needed().iter().map(|it| it.number).collect();
                    self.seals.pin(&self.service, &release, needed);
                }
                entry
            }
            Err(refusal) => Err(Untaken::Refused(refusal)),
        };
        let _ = told.send(entry);
    }

    /// Looks at the artifacts of all that is needed, once, when the daemon has started.
    pub(super) fn check_seals(&mut self) {
        let needed: Vec<_> = self.watch.phase().needed().into_iter().cloned().collect();
        for release in needed {
            let Some(seal) = self.seals.of(&release) else { continue };
            tokio::spawn(check(seal, release.number, self.outbox.clone()));
        }
    }

    /// The artifact of a release is not what was deployed.
    pub(super) fn doubted(&mut self, number: Number, doubt: &Doubt) {
        let text = doubt.to_string();
        match doubt {
            Doubt::Unreadable { .. } => {
                tracing::warn!(service = self.service.name, "{text}");
            }
            Doubt::Changed { .. } | Doubt::Gone { .. } => {
                self.note(number, &text);
                tracing::error!(service = self.service.name, page = true, "{text}");
            }
        }
    }
}

async fn check(seal: Seal, number: Number, outbox: mpsc::Sender<Input>) {
    if let Err(doubt) = seal.check().await {
        let _ = outbox.send(Input::Doubted(number, doubt)).await;
    }
}

fn artifact_of(order: &Order) -> Option<String> {
    match &order.command {
        Command::Deploy(deploy) => deploy.artifact.clone(),
        Command::Rollback { .. } | Command::Hold { .. } | Command::Resume { .. } => None,
    }
}

/// The same order, with what its artifact is.
fn sealed(mut order: Order, found: &artifact::Found) -> Order {
    if let Command::Deploy(deploy) = &mut order.command {
        deploy.artifact = Some(found.artifact.clone());
        deploy.digest = found.digest().map(ToString::to_string);
    }
    order
}

/// The release that a decision brings.
fn brings(decision: &Decision) -> Option<Release> {
    match &decision.fact {
        Fact::Deployed { release, .. } => Some(release.clone()),
        _ => None,
    }
}
