//! When the proxy repeats requests on the warm release, and how many.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::JoinHandle;

use crate::config::Service;
use crate::decide::{Phase, Watch};
use crate::judge::BLOCK_MS;
use crate::machine::ServiceMachine;
use crate::model::{Event, Moment, Observation, Release, ReleaseNumber, Signal};
use crate::proxy::Proxy;
use crate::service::traffic_window::TrafficWindow;
use crate::signal::Prober;

/// Shadow calls a second while there is little traffic, unless fewer are configured.
const SHADOW_RATE_MIN: u32 = 40;

/// The shadow calls of one service.
#[derive(Debug, Default)]
pub(crate) struct ShadowController {
    compared: Option<Compared>,
    /// Thousandths of a call that remain of the rate.
    remainder: u64,
    tools_query: Option<JoinHandle<()>>,
}

/// The releases that are compared, and the results so far: calls that ended, and failures among them.
#[derive(Debug, Clone, Copy)]
struct Compared {
    active: ReleaseNumber,
    warm: ReleaseNumber,
    results: (u64, u64),
}

impl ShadowController {
    /// How many calls may be sent in one block of time, at this rate a second.
    fn budget(&mut self, rate: u32) -> u32 {
        let sum = self.remainder + u64::from(rate) * u64::from(BLOCK_MS);
        self.remainder = sum % 1_000;
        u32::try_from(sum / 1_000).unwrap_or(u32::MAX)
    }

    /// Requests of `active` are repeated on `warm`: the results since the last block.
    fn advance(&mut self, active: ReleaseNumber, warm: ReleaseNumber, proxy: &Proxy) -> (u64, u64) {
        let now = proxy.shadow_results(warm);
        let previous = match self.compared {
            Some(previous) if previous.warm == warm => previous.results,
            _ => now,
        };
        if let Some(previous) = self.compared.filter(|it| it.active != active) {
            proxy.stop_shadowing(previous.active);
        }
        self.compared = Some(Compared { active, warm, results: now });
        (now.0.saturating_sub(previous.0), now.1.saturating_sub(previous.1))
    }

    /// Nothing is compared now.
    fn stop(&mut self, proxy: &Proxy) {
        if let Some(previous) = self.compared.take() {
            proxy.stop_shadowing(previous.active);
        }
    }

    /// At the end of a block: sends calls while the judge is suspicious, `rate_max` a second at most.
    /// Returns the results of earlier ones.
    pub(super) fn on_block(
        &mut self,
        now: Moment,
        rate_max: u32,
        machine: &ServiceMachine,
        traffic: &BTreeMap<ReleaseNumber, TrafficWindow>,
        proxy: &Proxy,
    ) -> Option<Signal> {
        let Some((active, warm)) =
            compared_releases(machine.watch().phase()).filter(|_| 0 < rate_max)
        else {
            self.stop(proxy);
            return None;
        };
        let suspicious = machine.judge().is_some_and(|judge| judge.is_suspicious(now));
        // The proxy keeps failed requests before, or the first failures of a slow service were lost.
        // The warm release carried the whole traffic before, so it can carry the present rate.
        let request_rate = traffic.get(&active).map(TrafficWindow::rate).unwrap_or_default();
        let rate = rate_max.min(SHADOW_RATE_MIN.max(request_rate as u32));
        let budget = if suspicious { self.budget(rate) } else { 0 };
        proxy.send_shadow_calls(active, warm, budget);
        let (ended, failed) = self.advance(active, warm, proxy);
        let observation = Observation::Shadow(ended, failed);
        (0 < ended).then_some(Signal { release: warm, observation })
    }

    /// Learns from an event which tools are read-only, of the release that is warm next.
    pub(super) fn update_read_only_tools(&mut self, event: &Event, watch: &Watch, proxy: &Proxy) {
        if let Event::Ready(ticket, readiness) = event
            && *ticket == watch.ticket()
            && matches!(watch.phase(), Phase::Starting { .. })
        {
            let tools = readiness.active.as_ref().map(|it| it.read_only_tools.clone());
            self.set_read_only_tools(tools.unwrap_or_default(), proxy);
        }
    }

    /// Queries the same from the warm release after a restart of the daemon, and the tools that both
    /// releases list.
    pub(super) fn query_tools(&mut self, service: &Service, phase: &Phase, proxy: &Proxy) {
        let Phase::Baking { active, warm: Some(warm), .. } = phase else { return };
        let prober = |release: &Release| {
            let address = service.slots.get(&release.slot)?;
            Some((release.number, Prober::new(service, address, release)))
        };
        let warm_number = warm.number;
        let probers: Vec<_> = [warm, active].into_iter().filter_map(prober).collect();
        let proxy = proxy.clone();
        self.tools_query = Some(tokio::spawn(async move {
            for (number, mut prober) in probers {
                if let Some(contract) = prober.discover_contract(&BTreeSet::new()).await {
                    proxy.set_listed(number, &contract);
                    if number == warm_number {
                        proxy.set_read_only_tools(contract.read_only_tools);
                    }
                }
                prober.close().await;
            }
        }));
    }

    fn set_read_only_tools(&mut self, tools: BTreeSet<String>, proxy: &Proxy) {
        if let Some(query) = self.tools_query.take() {
            query.abort();
        }
        proxy.set_read_only_tools(tools);
    }
}

/// The active release and the warm one, while there is something to compare.
fn compared_releases(phase: &Phase) -> Option<(ReleaseNumber, ReleaseNumber)> {
    match phase {
        Phase::Baking { active, warm: Some(warm), .. } => Some((active.number, warm.number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_keeps_the_rate() {
        for rate in [1, 3, 4, 20, 1_000] {
            let mut controller = ShadowController::default();
            let mut sum = 0;
            for block in 1..=40 {
                sum += controller.budget(rate);
                assert!(sum <= rate * block / 4, "{rate} {block}");
            }
            assert_eq!(sum, rate * 10);
        }
    }
}
