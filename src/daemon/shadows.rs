//! When requests are repeated on the warm release, and how many.

use std::collections::BTreeSet;

use tokio::task::JoinHandle;

use crate::decide::Phase;
use crate::judge::BLOCK_MS;
use crate::model::{Event, Moment, Number, Release, Seen, Signal};
use crate::proxy::Proxy;
use crate::signal::Prober;

use super::gauge::Gauge;
use super::keeper::Keeper;

/// Repeats a second, however little is asked.
const SHADOWS_MIN: u32 = 40;

/// Repeats of one service.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    /// The release on trial, the warm one, and what ended there so far.
    pair: Option<(Number, Number, (u64, u64))>,
    /// Thousandths of a repeat that are left of the rate.
    carry: u64,
    question: Option<JoinHandle<()>>,
}

impl Shadows {
    /// How many may be sent in a block of time at a rate a second.
    fn share(&mut self, rate: u32) -> u32 {
        let sum = self.carry + u64::from(rate) * u64::from(BLOCK_MS);
        self.carry = sum % 1_000;
        u32::try_from(sum / 1_000).unwrap_or(u32::MAX)
    }

    /// Repeats of `active` go to `warm`; what ended there since the last time.
    fn between(&mut self, active: Number, warm: Number, proxy: &Proxy) -> (u64, u64) {
        let now = proxy.shadowed(warm);
        let before = match self.pair {
            Some((_, of, before)) if of == warm => before,
            _ => now,
        };
        if let Some((of, ..)) = self.pair.filter(|(of, ..)| *of != active) {
            proxy.shadow_off(of);
        }
        self.pair = Some((active, warm, now));
        (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
    }

    /// Nothing is compared now.
    fn off(&mut self, proxy: &Proxy) {
        if let Some((active, ..)) = self.pair.take() {
            proxy.shadow_off(active);
        }
    }

    fn learn(&mut self, tools: BTreeSet<String>, proxy: &Proxy) {
        if let Some(question) = self.question.take() {
            question.abort();
        }
        proxy.set_safe_tools(tools);
    }
}

impl Keeper {
    /// A block of time is over: repeats are sent while the judge is suspicious, and what came of
    /// earlier ones is heard.
    pub(super) fn shadow(&mut self, now: Moment) {
        let rate = self.service.limits.shadow_calls;
        let Some((active, warm)) = self.compared().filter(|_| rate > 0) else {
            self.shadows.off(&self.proxy);
            return;
        };
        let suspicious = self.trials.judge().is_some_and(|judge| judge.suspicious(now));
        // What fails is kept before, or the first failures of a slow service would be lost.
        // The warm release carried the whole traffic before; so much it bears again.
        let asked = self.gauges.get(&active).map(Gauge::rate).unwrap_or_default();
        let rate = rate.min(SHADOWS_MIN.max(asked as u32));
        let count = if suspicious { self.shadows.share(rate) } else { 0 };
        self.proxy.shadow(active, warm.number, count);
        let (ended, bad) = self.shadows.between(active, warm.number, &self.proxy);
        if ended > 0 {
            let seen = Seen::Shadow(ended, bad);
            self.weigh(now, &Signal { release: warm.number, seen });
        }
    }

    /// Takes from an event which tools of the release that is about to be warm change nothing.
    pub(super) fn learn(&mut self, event: &Event) {
        if let Event::Ready(ticket, readiness) = event
            && *ticket == self.watch.ticket()
            && matches!(self.watch.phase(), Phase::Starting { .. })
        {
            let tools = readiness.active.as_ref().map(|it| it.safe_tools.clone());
            self.shadows.learn(tools.unwrap_or_default(), &self.proxy);
        }
    }

    /// Asks the warm release the same after a restart of the daemon, which has forgotten it.
    pub(super) fn learn_again(&mut self) {
        let Some((_, warm)) = self.compared() else { return };
        let Some(address) = self.service.slots.get(&warm.slot) else { return };
        let service = &self.service;
        let mut prober = Prober::new(&service.probe, &service.path, address, &warm);
        let proxy = self.proxy.clone();
        self.shadows.question = Some(tokio::spawn(async move {
            if let Some(contract) = prober.contract().await {
                proxy.set_safe_tools(contract.safe_tools);
            }
            prober.close().await;
        }));
    }

    fn compared(&self) -> Option<(Number, Release)> {
        match self.watch.phase() {
            Phase::Baking { active, warm: Some(warm), .. } => Some((active.number, warm.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_whatever_it_is() {
        for rate in [1, 3, 4, 20, 1_000] {
            let mut shadows = Shadows::default();
            let mut sum = 0;
            for block in 1..=40 {
                sum += shadows.share(rate);
                assert!(sum <= rate * block / 4, "{rate} {block}");
            }
            assert_eq!(sum, rate * 10);
        }
    }
}
