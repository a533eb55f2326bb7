//! What follows from a decision: effects become calls of the proxy and the crew.

use crate::config::Address;
use crate::model::{Effect, Event, Release, Slot, Ticket, Toll};

use super::input::Input;
use super::keeper::Keeper;

impl Keeper {
    /// Starts one effect. What it comes to returns as an event.
    pub(super) fn act(&mut self, effect: Effect) {
        let ticket = self.watch.ticket();
        match effect {
            Effect::Keep(release) => self.keep(&release, false),
            Effect::Start(release) => {
                self.keep(&release, true);
                self.prove(ticket, &release);
            }
            Effect::Probe(release) => {
                if let Some(address) = self.address(&release) {
                    let seal = self.seals.of(&release);
                    self.crew.probe(ticket, &self.service, (&release, &address), seal);
                }
            }
            Effect::Route(release) => {
                if self.proxy.route(release.number) {
                    self.queue.push_back(Event::Routed(ticket));
                }
            }
            Effect::Drain(release, until) => {
                let patience = until.since(self.clock.now());
                let proxy = self.proxy.clone();
                self.leave(ticket, async move { proxy.drain(release.number, patience).await });
            }
            Effect::Cut(release) => {
                let proxy = self.proxy.clone();
                self.leave(ticket, async move { proxy.cut(release.number).await });
            }
            Effect::Retire(release) => {
                self.crew.retire(&self.service, &release, self.proxy.clone());
                self.forget(&release);
            }
            Effect::LetGo(release) => {
                self.crew.let_go(&self.service, &release, self.proxy.clone());
                self.forget(&release);
            }
            Effect::Page(text) => {
                let (service, deploy) = (&self.service.name, self.watch.deploy().0);
                tracing::error!(service, deploy, page = true, "{text}");
            }
        }
    }

    fn forget(&mut self, release: &Release) {
        self.names.remove(&release.number);
        self.seals.forget(release.number);
        self.probes.remove(&release.number);
        self.deaths.remove(&release.number);
    }

    fn keep(&mut self, release: &Release, fresh: bool) {
        if let Some(address) = self.address(release) {
            let seal = self.seals.of(release);
            self.crew.keep(&self.service, (release, &address), seal, fresh);
            self.proxy.add(release.number, &address);
        }
    }

    fn prove(&mut self, ticket: Ticket, release: &Release) {
        let active = self.watch.phase().active().cloned();
        let active = active.and_then(|it| self.address(&it).map(|address| (it, address)));
        if let Some(address) = self.address(release) {
            let active = active.as_ref().map(|(active, address)| (active, address));
            let new = (release, &address);
            self.crew.prove(ticket, &self.service, new, active, self.proxy.clone());
        }
    }

    fn leave(&self, ticket: Ticket, work: impl Future<Output = Toll> + Send + 'static) {
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let toll = work.await;
            let _ = outbox.send(Input::Event(Event::Emptied(ticket, toll))).await;
        });
    }

    /// The address of a release's slot. A slot that left the configuration has none any more.
    fn address(&self, release: &Release) -> Option<Address> {
        let Slot(slot) = &release.slot;
        let address = self.service.slots.get(&release.slot).cloned();
        if address.is_none() {
            let service = &self.service.name;
            tracing::error!(
                service,
                page = true,
                "{release} runs in slot {slot}, which is not configured"
            );
        }
        address
    }
}
