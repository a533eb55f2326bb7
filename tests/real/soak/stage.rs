//! A daemon, its clients, and the deploys.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::time::{Instant, sleep_until};

use super::faults::{Cause, Failure, Fault, Seen};
use super::kinds::{Interruption, Kind};
use super::resources::Resources;
use crate::clients::{ClientKind, SdkClients};
use crate::harness::{CliOutput, RealServerHarness, SERVICE};
use crate::rng::Rng;
use crate::servers::{OLD_SLOW, ServerKind};

/// About how often each client calls, in milliseconds.
const EVERY_MS: u32 = 500;
/// After so many calls a client leaves, and another one comes. One of each kind is short-lived: its new
/// sessions meet the new release at once.
const STAYS: [(&str, Option<&str>, u32); 3] =
    [("long", Some(OLD_SLOW), 90), ("short", None, 5), ("other", Some(OLD_SLOW), 400)];
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct SoakStage {
    stage: RealServerHarness,
    party: Vec<SdkClients>,
    rng: Rng,
    is_long: bool,
    _copies: TempDir,
    broken: PathBuf,
    /// The version in charge, the one before it, and the number of the newest one.
    active: String,
    previous: String,
    newest: u32,
    faults: Vec<Fault>,
    resources: Resources,
    /// How often each kind was played, with the longest time.
    played: BTreeMap<String, (u32, f64)>,
    wrong: Vec<String>,
}

impl SoakStage {
    /// Starts the daemon with a first release, and the clients.
    pub(super) async fn start(server: ServerKind, is_long: bool, rng: Rng) -> Self {
        let stage = RealServerHarness::start(server, &Kind::AllAtOnce.settings(is_long)).await;
        let said = stage.deploy_old("v1", &["--wait"]).await;
        assert!([0, 13].contains(&said.code), "{said:?}");
        let kinds = [
            ClientKind::TypeScript1,
            ClientKind::TypeScript2,
            ClientKind::Python1,
            ClientKind::Python2,
        ];
        let modern = [ClientKind::TypeScript2Modern, ClientKind::Python2Modern];
        let modern = modern.iter().filter(|_| server == ServerKind::Python);
        let party = kinds.iter().chain(modern);
        let mut party: Vec<_> = party.map(|&kind| SdkClients::start(&stage, kind)).collect();
        for clients in &mut party {
            for (name, slow, stay) in STAYS {
                clients.connect(name).await;
                clients.work(name, EVERY_MS, slow, stay).await;
            }
        }
        let copies = tempfile::tempdir().unwrap();
        let broken = server.broken_release(copies.path());
        Self {
            stage,
            party,
            rng,
            is_long,
            _copies: copies,
            broken,
            active: "v1".to_owned(),
            previous: "v1".to_owned(),
            newest: 1,
            faults: Vec::new(),
            resources: Resources::default(),
            played: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Plays one deploy, and waits until `every` is over since it began.
    pub(super) async fn play(&mut self, kind: Kind, interruption: Interruption, every: Duration) {
        let began = Instant::now();
        let name = format!("{kind:?}, {interruption:?}");
        // A long run tells all that went wrong, and goes on.
        let played = AssertUnwindSafe(self.deploy(kind, interruption)).catch_unwind().await;
        if let Err(panic) = played {
            let text = panic.downcast_ref::<String>().cloned();
            self.wrong.push(format!("{name}: {}", text.unwrap_or_else(|| "panicked".to_owned())));
            self.mend().await;
        }
        let took = began.elapsed().as_secs_f64();
        println!("{:?}: {name} took {took:.1} s; {} is in charge", self.stage.server, self.active);
        let (times, longest) = self.played.entry(name).or_default();
        *times += 1;
        *longest = longest.max(took);
        self.resources.sample(self.stage.daemon_pid());
        while began.elapsed() + SAMPLE_INTERVAL < every {
            sleep_until(Instant::now() + SAMPLE_INTERVAL).await;
            self.resources.sample(self.stage.daemon_pid());
        }
        sleep_until(began + every).await;
    }

    /// Ends the clients, prints what happened, and fails if anything was wrong.
    pub(super) async fn finish(mut self) {
        let mut explained: BTreeMap<String, u64> = BTreeMap::new();
        for mut clients in std::mem::take(&mut self.party) {
            for (name, ..) in STAYS {
                let seen: Seen = serde_json::from_value(clients.rest(name).await).unwrap();
                self.judge(&format!("{:?} {name}", clients.kind()), &seen, &mut explained);
            }
        }
        for (name, (times, longest)) in &self.played {
            println!("{name:<24} {times:>3} times, {longest:>5.1} s at most");
        }
        let (text, grown) = self.resources.growth();
        println!("failures with a cause: {explained:?}\n{text}");
        self.wrong.extend(grown);
        let stage = &self.stage;
        stage.wait_until("only one daemon is left", async || stage.daemons().len() == 1).await;
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert_eq!(self.stage.stop_daemon().await.unwrap_or_default(), 0);
    }

    /// Whether a cause explains all that a client saw.
    fn judge(&mut self, who: &str, seen: &Seen, explained: &mut BTreeMap<String, u64>) {
        println!(
            "{who}: {:?}, {} failed, {} times the tools changed",
            seen.done, seen.failed, seen.changes
        );
        if seen.done.is_empty() || seen.failed > seen.failures.len() as u64 {
            self.wrong.push(format!("{who}: {} failed", seen.failed));
        }
        for failure in &seen.failures {
            match self.explanation(failure) {
                Some(cause) => *explained.entry(cause).or_default() += 1,
                None => self.wrong.push(format!("{who}: {failure:?}")),
            }
        }
    }

    fn explanation(&self, failure: &Failure) -> Option<String> {
        let fault = self.faults.iter().find(|fault| fault.explains(failure))?;
        Some(format!("{:?}: {}", fault.cause, failure.what))
    }

    async fn deploy(&mut self, kind: Kind, interruption: Interruption) {
        self.stage.configure(&kind.settings(self.is_long));
        self.command(&["reload"], &[0]).await;
        let before = self.active.clone();
        match kind {
            Kind::Broken => self.deploy_broken(interruption).await,
            Kind::SameVersion => {
                let said = self.stage.deploy_old(&before, &["--wait"]).await;
                assert_eq!(said.code, 0, "{said:?}");
                self.begin(&before, &["--restart"]).await;
                self.interrupt(interruption).await;
                self.wait_until_accepted().await;
            }
            Kind::AllAtOnce | Kind::OneStep | Kind::TwoSteps => {
                self.deploy_next(interruption).await;
            }
            Kind::Promoted => {
                let version = self.begin_next().await;
                self.interrupt(interruption).await;
                self.command(&["promote", SERVICE], &[0]).await;
                self.now_active(version);
            }
            Kind::Aborted => {
                self.begin_next().await;
                self.interrupt(interruption).await;
                self.command(&["abort", SERVICE, "--because", "a soak"], &[0]).await;
            }
            Kind::RolledBack | Kind::Cut => {
                self.deploy_next(interruption).await;
                self.roll_back(kind).await;
            }
            Kind::Held => {
                let version = self.begin_next().await;
                self.command(&["hold", SERVICE], &[0]).await;
                self.interrupt(interruption).await;
                let status = self.stage.status().await;
                assert_eq!(status["phase"], "baking", "{status}");
                self.command(&["resume", SERVICE], &[0]).await;
                self.wait_until_accepted().await;
                self.now_active(version);
            }
        }
        self.settle().await;
    }

    /// Deploys the next version, and waits until it is accepted.
    async fn deploy_next(&mut self, interruption: Interruption) {
        let version = self.begin_next().await;
        self.interrupt(interruption).await;
        self.wait_until_accepted().await;
        self.now_active(version);
    }

    async fn deploy_broken(&mut self, interruption: Interruption) {
        self.newest += 1;
        let version = format!("v{}", self.newest);
        self.faults.push(Fault::begin(Cause::Broken));
        let said = self.stage.deploy(&version, self.broken.clone(), &["--allow-quarantined"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        self.interrupt(interruption).await;
        // The answers of its last sessions arrive before it ends.
        self.stage.wait_for_status("phase", "steady").await;
        self.end_fault();
        assert!(self.timeline().await.iter().any(|(kind, ..)| kind == "detected"));
    }

    async fn roll_back(&mut self, kind: Kind) {
        let order = ["rollback", SERVICE, "--because", "a soak"];
        if kind == Kind::Cut {
            self.faults.push(Fault::begin(Cause::Cut));
            self.command(&[&order[..], &["--cut"]].concat(), &[0]).await;
            self.end_fault();
        } else {
            self.command(&order, &[0]).await;
        }
        self.active.clone_from(&self.previous);
    }

    async fn begin_next(&mut self) -> String {
        self.newest += 1;
        let version = format!("v{}", self.newest);
        self.begin(&version, &["--allow-quarantined"]).await;
        version
    }

    /// Deploys a healthy release; returns in its bake.
    async fn begin(&self, version: &str, more: &[&str]) {
        let said = self.stage.deploy_old(version, more).await;
        assert_eq!(said.code, 0, "{said:?}");
        self.stage.wait_for_status("phase", "baking").await;
    }

    /// At a random moment of the bake.
    async fn interrupt(&mut self, interruption: Interruption) {
        if interruption == Interruption::None {
            return;
        }
        let longest = if self.is_long { 8_000 } else { 1_000 };
        self.pause_up_to(longest).await;
        if interruption == Interruption::Handover {
            return self.stage.hand_over().await;
        }
        self.faults.push(Fault::begin(Cause::Killed));
        self.stage.kill_daemon().await;
        self.end_fault();
        self.pause_up_to(1_000).await;
        self.stage.restart_daemon().await;
    }

    fn end_fault(&mut self) {
        self.faults.last_mut().unwrap().end();
    }

    async fn pause_up_to(&mut self, ms: u64) {
        let pause = Duration::from_millis(100 + self.rng.below(ms));
        sleep_until(Instant::now() + pause).await;
    }

    async fn wait_until_accepted(&self) {
        self.stage.wait_for_status("phase", "steady").await;
        let timeline = self.timeline().await;
        assert!(timeline.iter().any(|(kind, ..)| kind == "accepted"), "{timeline:?}");
    }

    fn now_active(&mut self, version: String) {
        self.previous = std::mem::replace(&mut self.active, version);
    }

    /// The entries of the newest deploy.
    async fn timeline(&self) -> Vec<(String, u64, String)> {
        let status = self.stage.status().await;
        let newest = status["deploy"].as_u64().unwrap();
        self.stage.timeline(newest.try_into().unwrap()).await
    }

    async fn command(&self, arguments: &[&str], codes: &[i32]) -> CliOutput {
        let said = self.stage.run_cli(arguments).await;
        assert!(codes.contains(&said.code), "{arguments:?}: {said:?}");
        said
    }

    /// Waits until the service rests: with the right release, and a record in order.
    async fn settle(&mut self) {
        self.stage.wait_for_status("phase", "steady").await;
        let status = self.stage.status().await;
        assert_eq!(status["active"], self.active.as_str(), "{status}");
        let timeline = self.timeline().await;
        assert!(timeline.is_sorted_by_key(|(_, ms, _)| *ms), "{timeline:?}");
    }

    /// After a deploy that went wrong: a daemon that runs, and what it has in charge.
    async fn mend(&mut self) {
        if self.stage.daemons().is_empty() {
            self.stage.restart_daemon().await;
        }
        let _ = self.stage.run_cli(&["resume", SERVICE]).await;
        self.stage.wait_for_status("phase", "steady").await;
        let active = self.stage.status().await["active"].as_str().unwrap().to_owned();
        self.previous = std::mem::replace(&mut self.active, active);
    }
}
