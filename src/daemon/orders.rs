//! What a person asks for: looked at, decided, and answered.

use crate::artifact::{self, Seal};
use crate::model::{Command, Decision, Fact, Moment, Order, Release, Reply};

use super::input::{Input, Told, Untaken};
use super::keeper::Keeper;

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
                    self.seals.keep(release.number, seal);
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
