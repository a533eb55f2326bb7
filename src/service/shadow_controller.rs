//! When requests are repeated on the warm release, and how many.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use crate::decide::Phase;
use crate::judge::BLOCK_MS;
use crate::model::{Event, Moment, Observation, Release, ReleaseNumber, Signal};
use crate::proxy::Proxy;
use crate::service::service_loop::ServiceLoop;
use crate::service::traffic_window::TrafficWindow;
use crate::signal::Prober;

/// Repeats a second, however little is asked.
const SHADOW_RATE_MIN: u32 = 40;

/// Repeats of one service.
#[derive(Debug, Default)]
pub(crate) struct ShadowController {
    /// The release on trial, the warm one, and what ended there so far.
    compared: Option<(ReleaseNumber, ReleaseNumber, (u64, u64))>,
    /// Thousandths of a repeat that are left of the rate.
    remainder: u64,
    tools_query: Option<JoinHandle<()>>,
}

impl ShadowController {
    /// How many may be sent in a block of time at a rate a second.
    fn budget(&mut self, rate: u32) -> u32 {
        let sum = self.remainder + u64::from(rate) * u64::from(BLOCK_MS);
        self.remainder = sum % 1_000;
        u32::try_from(sum / 1_000).unwrap_or(u32::MAX)
    }

    /// Repeats of `active` go to `warm`; what ended there since the last time.
    fn advance(&mut self, active: ReleaseNumber, warm: ReleaseNumber, proxy: &Proxy) -> (u64, u64) {
        let now = proxy.shadow_results(warm);
        let previous = match self.compared {
            Some((_, of, before)) if of == warm => before,
            _ => now,
        };
        if let Some((of, ..)) = self.compared.filter(|(of, ..)| *of != active) {
            proxy.stop_shadowing(of);
        }
        self.compared = Some((active, warm, now));
        (now.0.saturating_sub(previous.0), now.1.saturating_sub(previous.1))
    }

    /// Nothing is compared now.
    fn stop(&mut self, proxy: &Proxy) {
        if let Some((active, ..)) = self.compared.take() {
            proxy.stop_shadowing(active);
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
    /// A block of time is over: repeats are sent while the judge is suspicious, and what came of
    /// earlier ones is heard.
    pub(crate) fn schedule_shadow_calls(&mut self, now: Moment) {
        let rate = self.service.limits.shadow_calls_per_second;
        let Some((active, warm)) = self.compared_releases().filter(|_| rate > 0) else {
            self.shadow_controller.stop(&self.proxy);
            return;
        };
        let suspicious = self.judge().is_some_and(|judge| judge.is_suspicious(now));
        // What fails is kept before, or the first failures of a slow service would be lost.
        // The warm release carried the whole traffic before; so much it bears again.
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

    /// Takes from an event which tools of the release that is about to be warm change nothing.
    pub(crate) fn update_read_only_tools(&mut self, event: &Event) {
        if let Event::Ready(ticket, readiness) = event
            && *ticket == self.watch().ticket()
            && matches!(self.watch().phase(), Phase::Starting { .. })
        {
            let tools = readiness.active.as_ref().map(|it| it.read_only_tools.clone());
            self.shadow_controller.set_read_only_tools(tools.unwrap_or_default(), &self.proxy);
        }
    }

    /// Asks the warm release the same after a restart of the daemon, which has forgotten it.
    pub(crate) fn query_read_only_tools(&mut self) {
        let Some((_, warm)) = self.compared_releases() else { return };
        let Some(address) = self.service.slots.get(&warm.slot) else { return };
        let service = &self.service;
        let mut prober = Prober::new(&service.probe, &service.path, address, &warm);
        let proxy = self.proxy.clone();
        self.shadow_controller.tools_query = Some(tokio::spawn(async move {
            if let Some(contract) = prober.discover_contract().await {
                proxy.set_read_only_tools(contract.read_only_tools);
            }
            prober.close().await;
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
