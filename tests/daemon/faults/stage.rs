//! A daemon under load, to which faults happen.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use rollbackd::clock::Clock;
use rollbackd::demo::traffic::{FailedRequest, LiveCounts, TrafficGenerator};
use rollbackd::model::{Moment, ReleaseNumber};
use rollbackd::record;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use tokio::runtime::Runtime;

use super::kinds::{End, Fault, Trouble};
use super::table::{self, Round};
use crate::support::{
    CliOutput, CutPort, DaemonHarness, Rng, SERVICE, TmpfsDisk, memory_kib, open_files, signal,
    sleep, wait_until,
};

/// A healthy release is accepted after it; a fifth of failures is found well before.
const SETTINGS: &str = "bake = \"25s\"\ndeadline = \"1s\"\nburst = \"5s\"";
/// Space for all timelines of the longest run.
const DISK_KIB: usize = 64 * 1024;
/// When a bad release begins to fail, after the command that deploys it.
const FAULT_AFTER_MS: u64 = 3_000;
/// The files that a daemon may open beside those that it has, when they are few.
const FILES_LEFT: u64 = 4;
/// That of the configuration of the harness, and the time to the next one.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_300);

pub(super) struct FaultStage {
    pub(super) rng: Rng,
    disk: TmpfsDisk,
    host: DaemonHarness,
    runtime: Runtime,
    clock: Clock,
    load: Option<TrafficGenerator>,
    counts: Box<dyn Fn() -> LiveCounts>,
    failures: Box<dyn Fn() -> Vec<FailedRequest>>,
    rate: u64,
    /// The network of the new release, if it is cut.
    cut_off: Option<CutPort>,
    /// The number of the release in charge, and of the newest deploy.
    active: u32,
    newest: u32,
    rounds: Vec<Round>,
}

impl FaultStage {
    pub(super) fn start(rng: Rng, rate: u32) -> Self {
        let mut host = DaemonHarness::new(SETTINGS);
        let disk = TmpfsDisk::mount(&host.state(), DISK_KIB);
        host.start();
        host.deploy("v1", &["--wait"]).expect_code(0);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let clock = Clock::start(Moment(0));
        let load = {
            let _entered = runtime.enter();
            TrafficGenerator::start(([127, 0, 0, 1], host.listen).into(), rate, clock)
        };
        load.start_second_wave();
        let (counts, failures) = (Box::new(load.counter()), Box::new(load.failures()));
        let (load, rate, rounds) = (Some(load), u64::from(rate), Vec::new());
        let (active, newest) = (1, 1);
        let stage = Self {
            rng,
            disk,
            host,
            runtime,
            clock,
            load,
            counts,
            failures,
            rate,
            cut_off: None,
            active,
            newest,
            rounds,
        };
        stage.wait_for_requests();
        stage
    }

    /// Lets a fault happen, and waits until the service rests.
    pub(super) fn play(&mut self, fault: &'static Fault) {
        let (from, broken) = (self.clock.now(), (self.counts)().broken);
        let before = self.active;
        // A run of many faults tells all that went wrong, and goes on.
        let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
            match fault.deploy {
                None => self.inject(fault.trouble),
                Some(kind) => self.deploy(fault, kind),
            }
            self.settle();
        }));
        let mut wrong = Vec::new();
        if let Err(panic) = played {
            let text = panic.downcast_ref::<String>().cloned();
            wrong.push(text.unwrap_or_else(|| "panicked".to_owned()));
            self.mend();
        }
        let expected = match (fault.end, fault.deploy) {
            (End::Stays, Some(_)) => Some(self.newest),
            (End::Stays | End::Back, _) => Some(before),
            (End::Either, _) => None,
        };
        if expected.is_some_and(|expected| expected != self.active) {
            wrong.push(format!("release {} is in charge, not {expected:?}", self.active));
        }
        let lost = (self.counts)().broken - broken;
        if lost > 0 {
            wrong.push(format!("{lost} sessions lost"));
        }
        let pid = self.host.pid();
        let round = Round {
            fault,
            from,
            until: self.clock.now(),
            rss_kib: memory_kib(pid, "VmRSS"),
            files: open_files(pid),
            wrong,
        };
        println!("{round}; {:?}", (self.counts)());
        self.rounds.push(round);
    }

    /// Ends the load, prints the table, and returns what was wrong.
    pub(super) fn finish(mut self) -> Vec<String> {
        let load = self.load.take().unwrap();
        let report = self.runtime.block_on(load.stop(Moment(0)));
        let (text, wrong) = table::evaluate(&self.rounds, &(self.failures)());
        println!("{text}{report:?}");
        self.host.stop();
        drop(self.disk);
        wrong
    }

    /// Deploys a release, with a trouble in its bake.
    fn deploy(&mut self, fault: &Fault, kind: &str) {
        self.newest += 1;
        let (number, version) = (self.newest, format!("v{}", self.newest));
        let deploy = self.host.spawn_faulty_deploy(&version, kind, FAULT_AFTER_MS, &["--wait"]);
        wait_until("the release has the traffic", || self.has_entry(number, "switched"));
        let previous = std::mem::replace(&mut self.active, number);
        let longest = if fault.end == End::Back { FAULT_AFTER_MS } else { 6_000 };
        let at = self.rng.below(longest);
        // The trouble comes at a random moment.
        sleep(Duration::from_millis(at));
        self.inject_with(fault.trouble, previous);
        let ended: CliOutput = deploy.wait();
        self.cut_off = None;
        let codes: &[i32] = match fault.end {
            End::Stays => &[0, 13],
            End::Back => &[3],
            End::Either => &[0, 3, 13],
        };
        assert!(codes.contains(&ended.code), "deploy ended with {}: {}", ended.code, ended.out);
    }

    fn has_entry(&self, deploy: u32, kind: &str) -> bool {
        let folder = self.host.state().join(SERVICE);
        record::read_deploy(&folder, Some(ReleaseNumber(deploy)))
            .is_ok_and(|entries| entries.iter().any(|entry| entry.event.kind() == kind))
    }

    fn inject(&mut self, trouble: Trouble) {
        self.inject_with(trouble, self.active);
    }

    /// Lets the trouble begin and end. The warm release has the number `warm`.
    fn inject_with(&mut self, trouble: Trouble, warm: u32) {
        let daemon = self.host.pid();
        match trouble {
            Trouble::Nothing => (),
            Trouble::DaemonKilled => {
                self.host.kill();
                self.pause_up_to(1_500);
                self.host.start();
            }
            Trouble::DaemonPaused => self.stop_for_a_while(&[daemon], 2_500),
            Trouble::Handover => self.host.wait_for_handover(),
            Trouble::DiskFull => {
                self.disk.fill_up();
                self.pause_up_to(3_000);
                self.disk.free_space();
            }
            Trouble::FewFiles => {
                let limit = Some(open_files(daemon) as u64 + FILES_LEFT);
                let before = prlimit_files(daemon, limit);
                self.pause_up_to(3_000);
                prlimit_files(daemon, before);
            }
            Trouble::ActiveKilled => self.host.release_process(self.active).kill(),
            Trouble::WarmKilled => self.host.release_process(warm).kill(),
            Trouble::ActivePaused => {
                self.stop_for_a_while(&[self.host.release_process(self.active).pid], 2_500)
            }
            Trouble::ActiveCutOff => self.cut_off_for_a_while(self.active),
            Trouble::WarmCutOff => self.cut_off_for_a_while(warm),
            Trouble::NewCutOff => self.cut_off = Some(self.cut_off_release(self.active)),
            Trouble::Boot => {
                let releases = self.host.release_processes();
                self.host.kill();
                releases.iter().for_each(|it| it.kill());
                self.pause_up_to(1_500);
                self.host.start();
            }
            Trouble::BothPaused => {
                let pids = [self.active, warm].map(|number| self.host.release_process(number).pid);
                self.stop_for_a_while(&pids, 2_500);
            }
            Trouble::Scanned => self.scan(),
            Trouble::DaemonPausedLong => self.stop_for_a_while(&[daemon], 15_000),
            Trouble::WarmPaused => {
                self.stop_for_a_while(&[self.host.release_process(warm).pid], 2_500)
            }
        }
    }

    fn cut_off_release(&self, number: u32) -> CutPort {
        let is_blue = self.host.release_process(number).slot == "blue";
        CutPort::new(if is_blue { self.host.blue } else { self.host.green })
    }

    fn cut_off_for_a_while(&mut self, number: u32) {
        let cut = self.cut_off_release(number);
        self.pause_up_to(2_500);
        drop(cut);
        // A probe that was sent meanwhile fails up to its timeout later, and a deploy then is refused.
        let mut answer_since = None;
        wait_until("no probe is late", || {
            if !self.answer() {
                answer_since = None;
                return false;
            }
            let now = self.clock.now();
            PROBE_TIMEOUT < now.since(*answer_since.get_or_insert(now))
        });
    }

    /// Whether each release answered its last probe.
    fn answer(&self) -> bool {
        let status = self.host.status();
        status["releases"].as_array().unwrap().iter().all(|it| it["probe"] == "ok")
    }

    fn stop_for_a_while(&mut self, pids: &[i32], longest_ms: u64) {
        pids.iter().for_each(|pid| signal(*pid, Signal::STOP));
        self.pause_up_to(longest_ms);
        pids.iter().for_each(|pid| signal(*pid, Signal::CONT));
    }

    /// Requests of a scanner, which no release serves.
    fn scan(&self) {
        let paths = ["/favicon.ico", "/wp-login.php", "/.well-known/security.txt", "/admin"];
        for (number, path) in paths.iter().cycle().take(100).enumerate() {
            let method = if number % 2 == 0 { "GET" } else { "POST" };
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let mut stream = TcpStream::connect(("127.0.0.1", self.host.listen)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 "), "{path}");
        }
    }

    fn pause_up_to(&mut self, ms: u64) {
        // A fault lasts for a random time.
        sleep(Duration::from_millis(100 + self.rng.below(ms)));
    }

    /// Waits until the service rests, and clients are served.
    fn settle(&mut self) {
        wait_until("the service rests", || {
            let status = self.host.status();
            // A deploy over a release that does not answer is refused.
            status["phase"] == "steady" && status["trouble"].is_null() && self.answer()
        });
        let status = self.host.status();
        let active = status["active"].as_str().unwrap();
        self.active = active.trim_start_matches('v').parse().unwrap();
        let entries = self.host.entries(self.newest);
        let gapless = entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq);
        assert!(gapless && entries.is_sorted_by_key(|it| it.moment), "{entries:#?}");
        self.wait_for_requests();
    }

    /// Requests of half a second.
    fn wait_for_requests(&self) {
        let until = (self.counts)().requests + self.rate / 2;
        wait_until("requests", || (self.counts)().requests >= until);
    }

    /// After a fault that was not survived: a daemon that runs, for the next fault.
    fn mend(&mut self) {
        let pids = self.host.daemons();
        if pids.is_empty() {
            self.host.start();
        }
        self.settle();
    }
}

/// Sets the limit of open files of a process; returns the one before. A process may not raise the maximum.
fn prlimit_files(pid: i32, current: Option<u64>) -> Option<u64> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(Pid::from_raw(pid), Resource::Nofile, Rlimit { current, maximum }).unwrap().current
}
