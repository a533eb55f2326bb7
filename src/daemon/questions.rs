//! The tasks that ask releases: probes, scrapes, the proof that a new one is ready, and whether what
//! they run from is still what was deployed.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::artifact::{Doubt, Seal};
use crate::clock::Clock;
use crate::config::{ProbeKind, Service};
use crate::model::{Number, Readiness, Reply, Seen, Signal};
use crate::signal::{Prober, Scraper};

use super::input::Input;

/// Answers in a row under one name before it counts.
const NAMED: u32 = 3;
/// Between probes while something is wrong, and while a new release becomes ready.
const PROBE_FAST: Duration = Duration::from_millis(100);
/// How long a look at an artifact may hold a rollback up. One that nobody touched takes less than a
/// tenth of a second; a release that answers is not left unused because its disk is slow.
const CHECK_MAX: Duration = Duration::from_secs(1);

/// Probes one release for ever; faster while something is wrong.
pub(super) async fn probe(
    mut prober: Prober,
    release: Number,
    pace: Duration,
    mut hurry: watch::Receiver<bool>,
    outbox: mpsc::Sender<Input>,
) {
    let mut last_ok = false;
    let mut name = Name::default();
    loop {
        let fast = *hurry.borrow_and_update() || !last_ok;
        let wait = if fast { PROBE_FAST.min(pace) } else { pace };
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            _ = hurry.changed(), if !fast => (),
        }
        let reply = prober.ask().await;
        last_ok = reply.is_ok();
        if let Some(named) = prober.server().filter(|_| last_ok).and_then(|it| name.hear(it))
            && outbox.send(Input::Named(release, named)).await.is_err()
        {
            return;
        }
        if outbox.send(Input::Signal(Signal { release, seen: Seen::Probe(reply) })).await.is_err() {
            return;
        }
    }
}

/// What a release calls itself. Several servers may answer at one address in turns while somebody
/// exchanges them: only what is said several times in a row counts.
#[derive(Debug, Default)]
struct Name {
    told: String,
    heard: String,
    times: u32,
}

impl Name {
    /// Another name than was told before.
    fn hear(&mut self, name: &str) -> Option<String> {
        if name != self.heard {
            (self.heard, self.times) = (name.to_owned(), 0);
        }
        self.times += 1;
        if self.times < NAMED || self.told == self.heard {
            return None;
        }
        self.told.clone_from(&self.heard);
        Some(self.told.clone())
    }
}

/// Reads the counters of one release for ever. A slow answer moves the next one, so that there is
/// never more than one.
pub(super) async fn scrape(
    scraper: Scraper,
    release: Number,
    every: Duration,
    clock: Clock,
    outbox: mpsc::Sender<Input>,
) {
    let mut times = tokio::time::interval(every);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let seen = Seen::Scraped(scraper.ask(clock.now()).await);
        if outbox.send(Input::Signal(Signal { release, seen })).await.is_err() {
            return;
        }
    }
}

/// Asks until there were enough good answers in a row, and a server that speaks MCP has told what
/// it offers. Whoever waits sets the limit in time.
pub(super) async fn become_ready(
    mut new: Prober,
    active: Option<Prober>,
    service: &Service,
) -> Readiness {
    let mut good = 0;
    while good < service.probe.ready {
        good = if new.ask().await == Reply::Ok { good + 1 } else { 0 };
        if good < service.probe.ready {
            tokio::time::sleep(PROBE_FAST).await;
        }
    }
    let mut contract = new.contract().await;
    while contract.is_none() && service.probe.kind == ProbeKind::Mcp {
        tokio::time::sleep(PROBE_FAST).await;
        contract = new.contract().await;
    }
    new.close().await;
    let active = match active {
        Some(mut active) => active.contract().await,
        None => None,
    };
    Readiness { new: contract, active, ..Readiness::default() }
}

/// What speaks against an artifact, if that can be told in time.
pub(super) async fn doubt(seal: Option<Seal>) -> Option<Doubt> {
    let seal = seal?;
    match tokio::time::timeout(CHECK_MAX, seal.check()).await {
        Ok(checked) => checked.err(),
        Err(_) => {
            let why = format!("{} was not checked within {CHECK_MAX:?}", seal.artifact());
            Some(Doubt::Unreadable { artifact: seal.artifact().to_owned(), why })
        }
    }
}

/// Why a release must not be started: its artifact is not what was deployed.
pub(super) async fn unfit(seal: Option<&Seal>) -> Result<(), String> {
    let Some(seal) = seal else { return Ok(()) };
    match seal.check().await {
        Err(doubt @ (Doubt::Changed { .. } | Doubt::Gone { .. })) => Err(doubt.to_string()),
        Ok(()) | Err(Doubt::Unreadable { .. }) => Ok(()),
    }
}
