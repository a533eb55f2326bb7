//! The tasks that query a release: probes, scrapes, and the readiness check of a new release.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::config::{ProbeKind, Service};
use crate::model::{Observation, ProbeResult, ReadinessReport, ReleaseNumber};
use crate::service::supervisor::reporter::Reporter;
use crate::signal::{Prober, Scraper};

/// Responses in a row with one name, before the name counts.
const IDENTITY_CONFIRMATIONS: u32 = 3;
/// Between probes while something is wrong, and while a new release becomes ready.
const PROBE_INTERVAL_FAST: Duration = Duration::from_millis(100);

/// Probes one release until the task is aborted; faster while something is wrong.
pub(super) async fn run_prober(
    mut prober: Prober,
    release: ReleaseNumber,
    interval: Duration,
    mut fast_probing: watch::Receiver<bool>,
    reporter: Reporter,
) {
    let mut last_ok = false;
    let mut identity = IdentityTracker::default();
    loop {
        let is_fast = *fast_probing.borrow_and_update() || !last_ok;
        let delay = if is_fast { PROBE_INTERVAL_FAST.min(interval) } else { interval };
        tokio::select! {
            () = tokio::time::sleep(delay) => (),
            _ = fast_probing.changed(), if !is_fast => (),
        }
        let reply = prober.probe().await;
        last_ok = reply.is_ok();
        if let Some(name) =
            prober.server_identity().filter(|_| last_ok).and_then(|it| identity.observe(it))
            && reporter.identity(release, name).await.is_err()
        {
            return;
        }
        if reporter.observation(release, Observation::Probe(reply)).await.is_err() {
            return;
        }
    }
}

/// The name that a release gives for itself. While an operator replaces a server, two of them may
/// answer at one address in turns: a name counts after several responses in a row.
#[derive(Debug, Default)]
struct IdentityTracker {
    confirmed: String,
    candidate: String,
    repeats: u32,
}

impl IdentityTracker {
    /// A confirmed name, if it differs from the one confirmed before.
    fn observe(&mut self, name: &str) -> Option<String> {
        if name != self.candidate {
            (self.candidate, self.repeats) = (name.to_owned(), 0);
        }
        self.repeats += 1;
        if self.repeats < IDENTITY_CONFIRMATIONS || self.confirmed == self.candidate {
            return None;
        }
        self.confirmed.clone_from(&self.candidate);
        Some(self.confirmed.clone())
    }
}

/// Reads the counters of one release until the task is aborted. A slow response delays the next
/// request, so there is at most one at a time.
pub(super) async fn run_scraper(
    scraper: Scraper,
    release: ReleaseNumber,
    every: Duration,
    reporter: Reporter,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let scraped = Observation::Scraped(scraper.scrape(Clock::wall_moment()).await);
        if reporter.observation(release, scraped).await.is_err() {
            return;
        }
    }
}

/// Probes a new release until enough probes in a row succeed and, for MCP, its contract is known.
/// It has no time limit of its own.
pub(super) async fn wait_ready(
    mut new: Prober,
    active: Option<Prober>,
    service: &Service,
    versions_in_use: impl Fn() -> BTreeSet<String>,
) -> ReadinessReport {
    let mut successes = 0;
    while successes < service.probe.ready_after {
        successes = if new.probe().await == ProbeResult::Ok { successes + 1 } else { 0 };
        if successes < service.probe.ready_after {
            tokio::time::sleep(PROBE_INTERVAL_FAST).await;
        }
    }
    // A session that opens later may miss its version; the next deploy asks for it.
    let in_use = versions_in_use();
    let mut contract = new.discover_contract(&in_use).await;
    while contract.is_none() && service.probe.kind == ProbeKind::Mcp {
        tokio::time::sleep(PROBE_INTERVAL_FAST).await;
        contract = new.discover_contract(&in_use).await;
    }
    new.close().await;
    let active = match active {
        Some(mut active) => active.discover_contract(&in_use).await,
        None => None,
    };
    ReadinessReport {
        new: contract,
        active,
        protocols_in_use: in_use,
        ..ReadinessReport::default()
    }
}
