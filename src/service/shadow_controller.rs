//! When the proxy repeats requests on the warm release, and how many.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use crate::decide::Phase;
use crate::judge::BLOCK_MS;
use crate::model::{Event, Moment, Observation, Release, ReleaseNumber, Signal};
use crate::proxy::Proxy;
use crate::service::service_loop::ServiceLoop;
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

    fn set_read_only_tools(&mut self, tools: BTreeSet<String>, proxy: &Proxy) {
        if let Some(query) = self.tools_query.take() {
            query.abort();
        }
        proxy.set_read_only_tools(tools);
    }
}

impl ServiceLoop {
    /// At the end of a block: sends shadow calls while the judge is suspicious, and reads the results
    /// of earlier ones.
    pub(crate) fn schedule_shadow_calls(&mut self, now: Moment) {
        let rate = self.service.limits.shadow_calls_per_second;
        let Some((active, warm)) = self.compared_releases().filter(|_| rate > 0) else {
            self.shadow_controller.stop(&self.proxy);
            return;
        };
        let suspicious = self.judge().is_some_and(|judge| judge.is_suspicious(now));
        // The proxy keeps failed requests before, or the first failures of a slow service were lost.
        // The warm release carried the whole traffic before, so it can carry the present rate.
        let request_rate = self.traffic.get(&active).map(TrafficWindow::rate).unwrap_or_default();
        let rate = rate.min(SHADOW_RATE_MIN.max(request_rate as u32));
        let budget = if suspicious { self.shadow_controller.budget(rate) } else { 0 };
        self.proxy.send_shadow_calls(active, warm.number, budget);
        let (ended, failed) = self.shadow_controller.advance(active, warm.number, &self.proxy);
        if ended > 0 {
            let seen = Observation::Shadow(ended, failed);
            self.observe(now, Signal { release: warm.number, observation: seen });
        }
    }

    /// Learns from an event which tools are read-only, of the release that is warm next.
    pub(crate) fn update_read_only_tools(&mut self, event: &Event) {
        if let Event::Ready(ticket, readiness) = event
            && *ticket == self.watch().ticket()
            && matches!(self.watch().phase(), Phase::Starting { .. })
        {
            let tools = readiness.active.as_ref().map(|it| it.read_only_tools.clone());
            self.shadow_controller.set_read_only_tools(tools.unwrap_or_default(), &self.proxy);
        }
    }

    /// Queries the same from the warm release after a restart of the daemon, and the tools that both
    /// releases list.
    pub(crate) fn query_tools(&mut self) {
        let Phase::Baking { active, warm: Some(warm), .. } = self.watch().phase() else { return };
        let prober = |release: &Release| {
            let address = self.service.slots.get(&release.slot)?;
            Some((release.number, Prober::new(&self.service, address, release)))
        };
        let warm_number = warm.number;
        let probers: Vec<_> = [warm, active].into_iter().filter_map(prober).collect();
        let proxy = self.proxy.clone();
        self.shadow_controller.tools_query = Some(tokio::spawn(async move {
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

    fn compared_releases(&self) -> Option<(ReleaseNumber, Release)> {
        match self.watch().phase() {
            Phase::Baking { active, warm: Some(warm), .. } => Some((active.number, warm.clone())),
            _ => None,
        }
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
