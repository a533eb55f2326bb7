//! Executes the effects of a decision on the proxy and the supervisor.

use std::sync::Arc;

use tracing::Instrument as _;

use crate::config::Address;
use crate::machine::{Input, Proposal};
use crate::model::{
    DrainCost, Effect, Event, Moment, Release, Slot, Ticket, TimelineEntry, TimelineEvent,
};
use crate::record::Room;
use crate::service::bake;
use crate::service::service_loop::ServiceLoop;
use crate::service::supervisor::release_supervisor::Placement;
use crate::service::supervisor::reporter::Reporter;
use crate::service::supervisor::unit_supervisor::StartPolicy;

impl ServiceLoop {
    /// Records a proposal, then applies and executes it.
    pub(super) fn record_and_apply(
        &mut self,
        proposal: Proposal,
    ) -> Result<Arc<TimelineEntry>, String> {
        let now = self.clock.now();
        let (before, time) = ((self.machine.watch(), &proposal), (now, self.clock));
        let (recorder, name) = (&mut self.recorder, &self.service.name);
        let is_rollback = self.machine.is_rollback(&proposal);
        let room = if is_rollback { Room::Rollback } else { Room::Ordinary };
        let entry = match recorder.append(time, name, before, room) {
            Ok(entry) => entry,
            Err(error) => {
                let acts = self.machine.acts_unrecorded(&proposal);
                match acts.then(|| recorder.append_later(time, name, before)).flatten() {
                    Some(entry) => entry,
                    None => {
                        self.machine.not_recorded(proposal);
                        return Err(error);
                    }
                }
            }
        };
        if matches!(proposal.event(), TimelineEvent::Deployed { .. }) {
            self.settings_deployed();
        }
        let effects = self.machine.recorded(now, proposal);
        self.publish_phase();
        effects.into_iter().for_each(|effect| self.execute(effect));
        self.sync_bake(now);
        self.recorder.publish(&entry);
        Ok(entry)
    }

    /// Opens and closes bakes as the phase asks for.
    pub(super) fn sync_bake(&mut self, now: Moment) {
        if let Some(release) = self.bake_log.ended(&self.machine) {
            self.record_last_counts(now, release);
        }
        let (traffic, proxy) = (&self.traffic, &self.proxy);
        let history = |release| bake::history(traffic.get(&release), proxy, release);
        let compared = self.bake_log.sync(now, &self.service.name, &mut self.machine, history);
        compared.iter().for_each(|it| it.start(proxy));
    }

    /// Starts one effect. Its result arrives as an event.
    pub(crate) fn execute(&mut self, effect: Effect) {
        let ticket = self.watch().ticket();
        match effect {
            Effect::KeepRunning(release) => self.supervise(&release, StartPolicy::Adopt),
            Effect::Start(release) => {
                self.supervise(&release, StartPolicy::MustStart);
                self.check_readiness(ticket, &release);
            }
            Effect::Probe(release) => {
                if let Some(address) = self.address(&release) {
                    let verifier = self.artifact_guard.verifier(&release);
                    let placement = Placement { release: &release, address: &address, verifier };
                    self.supervisor.probe_before_switch(ticket, &self.service, placement);
                }
            }
            Effect::Route(release) => {
                if self.proxy.set_active(release.number) {
                    self.input(Input::Event(Event::Routed(ticket)));
                }
            }
            Effect::Assign(on_trial, control, step) => {
                self.assign(ticket, (&on_trial, &control), step)
            }
            Effect::Drain(release, until) => {
                let timeout = until.since(self.clock.now());
                let proxy = self.proxy.clone();
                self.spawn_drain(ticket, async move { proxy.drain(release.number, timeout).await });
            }
            Effect::Cut(release) => {
                let proxy = self.proxy.clone();
                self.spawn_drain(ticket, async move { proxy.cut(release.number).await });
            }
            Effect::Retire(release) => {
                let deploy = self.watch().deploy();
                self.supervisor.retire(&self.service, &release, deploy, self.proxy.clone());
                self.artifact_guard.remove(release.number);
            }
            Effect::Detach(release) => {
                self.supervisor.detach_release(&self.service, &release, self.proxy.clone());
                self.artifact_guard.remove(release.number);
            }
            Effect::Page(text) => {
                let (service, deploy) = (&self.service.name, self.watch().deploy().0);
                tracing::error!(service, deploy, page = true, "{text}");
            }
        }
    }

    fn supervise(&mut self, release: &Release, start: StartPolicy) {
        if let Some(address) = self.address(release) {
            let verifier = self.artifact_guard.verifier(release);
            let placement = Placement { release, address: &address, verifier };
            self.supervisor.supervise(&self.service, placement, start);
            self.proxy.add_release(release.number, &address);
        }
    }

    fn check_readiness(&mut self, ticket: Ticket, release: &Release) {
        let active = self.watch().phase().active().cloned();
        let active = active.and_then(|it| self.address(&it).map(|address| (it, address)));
        if let Some(address) = self.address(release) {
            let active = active.as_ref().map(|(active, address)| (active, address));
            let new = (release, &address);
            self.supervisor.check_readiness(ticket, &self.service, new, active, self.proxy.clone());
        }
    }

    fn spawn_drain(&self, ticket: Ticket, drain: impl Future<Output = DrainCost> + Send + 'static) {
        let reporter = Reporter::new(self.inbox.clone());
        let drain = async move {
            let cost = drain.await;
            reporter.event(Event::NothingInFlight(ticket, cost)).await;
        };
        tokio::spawn(drain.in_current_span());
    }

    /// The address of a release's slot. `None`: the configuration does not name the slot any more.
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
