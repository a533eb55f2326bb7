//! The tasks that ask releases: probes, scrapes, the proof that a new one is ready, and whether what
//! they run from is still what was deployed.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::artifact::{Verifier, VerifyError};
use crate::clock::Clock;
use crate::config::{ProbeKind, Service};
use crate::model::{Observation, ProbeResult, ReadinessReport, ReleaseNumber, Signal};
use crate::service::inbox::ServiceMessage;
use crate::signal::{Prober, Scraper};

/// Answers in a row under one name before it counts.
const IDENTITY_CONFIRMATIONS: u32 = 3;
/// Between probes while something is wrong, and while a new release becomes ready.
const PROBE_INTERVAL_FAST: Duration = Duration::from_millis(100);
/// How long a look at an artifact may hold a rollback up. One that nobody touched takes less than a
/// tenth of a second; a release that answers is not left unused because its disk is slow.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes one release for ever; faster while something is wrong.
pub(crate) async fn run_prober(
    mut prober: Prober,
    release: ReleaseNumber,
    interval: Duration,
    mut fast_probing: watch::Receiver<bool>,
    inbox: mpsc::Sender<ServiceMessage>,
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
        if let Some(changed) =
            prober.server_identity().filter(|_| last_ok).and_then(|it| identity.observe(it))
            && inbox.send(ServiceMessage::IdentityChanged(release, changed)).await.is_err()
        {
            return;
        }
        if inbox
            .send(ServiceMessage::Signal(Signal {
                release,
                observation: Observation::Probe(reply),
            }))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// What a release calls itself. Several servers may answer at one address in turns while somebody
/// exchanges them: only what is said several times in a row counts.
#[derive(Debug, Default)]
struct IdentityTracker {
    confirmed: String,
    candidate: String,
    repeats: u32,
}

impl IdentityTracker {
    /// Another name than was told before.
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

/// Reads the counters of one release for ever. A slow answer moves the next one, so that there is
/// never more than one.
pub(crate) async fn run_scraper(
    scraper: Scraper,
    release: ReleaseNumber,
    every: Duration,
    clock: Clock,
    inbox: mpsc::Sender<ServiceMessage>,
) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seen = Observation::Scraped(scraper.scrape(clock.now()).await);
        if inbox.send(ServiceMessage::Signal(Signal { release, observation: seen })).await.is_err()
        {
            return;
        }
    }
}

/// Asks until there were enough good answers in a row, and a server that speaks MCP has told what
/// it offers. Whoever waits sets the limit in time.
pub(crate) async fn wait_ready(
    mut new: Prober,
    active: Option<Prober>,
    service: &Service,
) -> ReadinessReport {
    let mut successes = 0;
    while successes < service.probe.ready_after {
        successes = if new.probe().await == ProbeResult::Ok { successes + 1 } else { 0 };
        if successes < service.probe.ready_after {
            tokio::time::sleep(PROBE_INTERVAL_FAST).await;
        }
    }
    let mut contract = new.discover_contract().await;
    while contract.is_none() && service.probe.kind == ProbeKind::Mcp {
        tokio::time::sleep(PROBE_INTERVAL_FAST).await;
        contract = new.discover_contract().await;
    }
    new.close().await;
    let active = match active {
        Some(mut active) => active.discover_contract().await,
        None => None,
    };
    ReadinessReport { new: contract, active, ..ReadinessReport::default() }
}

/// What speaks against an artifact, if that can be told in time.
pub(crate) async fn verify_artifact(verifier: Option<Verifier>) -> Option<VerifyError> {
    let verifier = verifier?;
    match tokio::time::timeout(VERIFY_TIMEOUT, verifier.verify()).await {
        Ok(checked) => checked.err(),
        Err(_) => {
            let error =
                format!("{} was not checked within {VERIFY_TIMEOUT:?}", verifier.artifact());
            Some(VerifyError::Unreadable { artifact: verifier.artifact().to_owned(), why: error })
        }
    }
}

/// Why a release must not be started: its artifact is not what was deployed.
pub(crate) async fn verify_before_start(verifier: Option<&Verifier>) -> Result<(), String> {
    let Some(verifier) = verifier else { return Ok(()) };
    match verifier.verify().await {
        Err(error @ (VerifyError::Changed { .. } | VerifyError::Gone { .. })) => {
            Err(error.to_string())
        }
        Ok(()) | Err(VerifyError::Unreadable { .. }) => Ok(()),
    }
}
