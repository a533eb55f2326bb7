//! Runs a story: simulated releases, and the machine that the daemon drives.
#![expect(unreachable_pub, reason = "shared by tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollbackd::decide::{AfterBake, Phase};
use rollbackd::judge::service_judge::JudgeToOpen;
use rollbackd::judge::{BLOCK, BLOCK_MS, Indicator, Objective, ScrapePolicy};
use rollbackd::machine::{BakeOpening, Input};
use rollbackd::model::{
    ActiveUsers, Actor, CallKey, Command, CommandRequest, DeployRequest, DrainCost, Effect, Event,
    History, Moment, Observation, ProbeResult, ReadinessReport, Release, ReleaseLoad,
    ReleaseNumber, ScrapeResult, Signal, Slot, Ticket, TimelineEntry,
};

use crate::release_behaviour::ReleaseBehaviour;
use crate::simulated_host::{SimulatedHost, policy, secs, settings};

#[path = "story_arms.rs"]
mod story_arms;
#[path = "story_faults.rs"]
mod story_faults;

/// Blocks that a release takes to start, and to finish its requests in a drain.
const BLOCKS_START: u64 = 8;
const BLOCKS_DRAIN: u64 = 8;
const BLOCKS_PROBE: u64 = 4;
const BLOCKS_SCRAPE: u64 = 20;

pub struct StoryRunner {
    pub timeline: String,
    host: SimulatedHost,
    behaviours: BTreeMap<String, ReleaseBehaviour>,
    requests_per_second: u64,
    sessions: u64,
    /// The active users when the next release is ready.
    users_ready: ActiveUsers,
    /// Users of a ramp.
    users: u64,
    /// Requests of users so far.
    requests: u64,
    protocols_in_use: Vec<String>,
    call_usage: BTreeMap<CallKey, u64>,
    proxy_silent: bool,
    requests_hang: bool,
    /// The release whose artifact changed.
    changed_artifact: Option<String>,
    /// How the counters are scraped, and whether the bake waits for them.
    scrape_settings: Option<ScrapePolicy>,
    blocks: u64,
    /// Effects that a later block carries out.
    later: Vec<(u64, Ticket, Effect)>,
}

impl StoryRunner {
    pub fn new() -> Self {
        let mut stage = Self {
            timeline: String::new(),
            host: SimulatedHost::new(policy()),
            behaviours: BTreeMap::new(),
            requests_per_second: 100,
            sessions: 20,
            users_ready: ActiveUsers::default(),
            users: 50,
            requests: 0,
            protocols_in_use: vec!["2025-11-25".to_owned()],
            call_usage: BTreeMap::new(),
            proxy_silent: false,
            requests_hang: false,
            changed_artifact: None,
            scrape_settings: None,
            blocks: 0,
            later: Vec::new(),
        };
        stage.command(Command::Deploy(DeployRequest {
            version: "v1".to_owned(),
            ..DeployRequest::default()
        }));
        let blocks = BLOCKS_START + 1;
        (0..blocks).for_each(|_| stage.run_block());
        assert!(matches!(stage.host.watch().phase(), Phase::Steady { .. }));
        stage.timeline.clear();
        (stage.blocks, stage.host.now) = (0, Moment(0));
        stage
    }

    pub fn advance(&mut self, to: u64) {
        let to = Moment(to);
        assert!(self.host.now <= to, "time goes on");
        while self.host.now + BLOCK <= to {
            self.run_block();
        }
    }

    /// Runs one line of a story. Returns false if the line is invalid.
    pub fn run_line(&mut self, words: &[&str]) -> bool {
        let share = |word: &str| word.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        match *words {
            ["end"] => (),
            ["deploy", version, ref flags @ ..] => {
                self.command(Command::Deploy(deploy_request(version, flags)));
            }
            ["rollback", ref flags @ ..] => {
                let because = "users complain".to_owned();
                let (cut, force) = (flags.contains(&"--cut"), flags.contains(&"--force"));
                self.command(Command::Rollback { cut, force, because });
            }
            ["hold"] => self.command(Command::Hold { because: "under investigation".to_owned() }),
            ["resume"] => self.command(Command::Resume { because: "go on".to_owned() }),
            ["observe"] => self.host.policy.observe = true,
            ["start", n] => self.host.policy.start_timeout = secs(n.parse().unwrap()),
            ["drain", n] => self.host.policy.drain_timeout = secs(n.parse().unwrap()),
            ["slots", ref names @ ..] => {
                self.host.policy.slots = names.iter().map(|it| Slot((*it).to_owned())).collect();
            }
            ["after_bake", what] => self.host.policy.after_bake = after_bake(what),
            ["bake", n] => self.host.policy.bake = secs(n.parse().unwrap()),
            ["limit", n] => self.host.policy.rollbacks_per_day_max = n.parse().unwrap(),
            ["traffic", n] => self.requests_per_second = n.parse().unwrap(),
            ["sessions", n] => self.sessions = n.parse().unwrap(),
            ["sessions", "speak", protocol] => self.protocols_in_use.push(protocol.to_owned()),
            ["clients", "call", tool, calls] => {
                self.call_usage.insert(("tools/call".into(), tool.into()), calls.parse().unwrap());
            }
            ["proxy", what @ ("silent" | "answers")] => self.proxy_silent = what == "silent",
            ["requests", "hang"] => self.requests_hang = true,
            ["daemon", "down", until] => self.restart(until.parse().unwrap()),
            ["counters", policy] => {
                let interval = BLOCK * BLOCKS_SCRAPE as u32;
                let extend_bake = policy == "hold";
                self.scrape_settings = Some(ScrapePolicy { interval, extend_bake });
            }
            [version, "scrape", what] => self.scrape(version, what),
            [version, "fails", part] => self.behaviour(version).error_rate = share(part),
            [version, "slow", part] => self.behaviour(version).slow_rate = share(part),
            [version, "tools", part] => self.behaviour(version).tool_error_rate = share(part),
            [version, "starts"] => self.release_starts(version),
            [version, "refuses"] => self.behaviour(version).probe = ProbeResult::Refused,
            [version, "hangs"] => self.behaviour(version).probe = ProbeResult::TimedOut,
            [version, "broken"] => {
                let behaviour = self.behaviour(version);
                (behaviour.starts, behaviour.probe) = (false, ProbeResult::Refused);
            }
            [version, "well"] => *self.behaviour(version) = ReleaseBehaviour::default(),
            [version, "speaks", it] => self.behaviour(version).protocols = vec![it.to_owned()],
            [version, "lists", ref tools @ ..] => {
                self.behaviour(version).tool_names = tools.iter().map(|it| (*it).into()).collect();
            }
            [version, "dies"] => self.process_exits(version),
            [version, "spoiled"] => self.changed_artifact = Some(version.to_owned()),
            [version, "is", other] => self.release_replaced(version, other),
            _ if self.run_ramp_line(words) => (),
            _ => return false,
        }
        self.configure();
        true
    }

    fn scrape(&mut self, version: &str, what: &str) {
        let now = self.host.now.0 as f64 / 1000.0;
        let conduct = self.behaviour(version);
        conduct.scrape = match what {
            "down" => Some(ScrapeResult::Down("connection refused".to_owned())),
            "nan" => Some(ScrapeResult::NotANumber),
            "missing" => Some(ScrapeResult::Missing),
            "stale" => Some(ScrapeResult::Stale(400)),
            _ => None,
        };
        match what {
            "reset" => conduct.own_counters = (0.0, 0.0),
            "restart" => (conduct.own_counters, conduct.own_counters_since) = ((0.0, 0.0), now),
            _ => (),
        }
    }

    fn behaviour(&mut self, version: &str) -> &mut ReleaseBehaviour {
        self.behaviours.entry(version.to_owned()).or_default()
    }

    fn command(&mut self, command: Command) {
        let by = Actor { uid: 1000, pid: 42, user: None };
        match self.host.command(CommandRequest { by, command }) {
            Ok(entry) => self.after_entry(entry),
            Err(refusal) => writeln!(self.timeline, "{} {refusal}", self.host.now).unwrap(),
        }
    }

    /// The loop of the daemon: handles an input, then records and executes each decision.
    fn handle(&mut self, input: Input) {
        let now = self.host.now;
        self.host.machine.handle(now, input);
        let load = self.load();
        while let Some(proposal) = self.host.machine.poll(now, |_| load) {
            let entry = self.host.record_and_apply(proposal);
            self.after_entry(entry);
        }
    }

    fn handle_event(&mut self, event: Event) {
        self.handle(Input::Event(event));
    }

    fn load(&self) -> ReleaseLoad {
        let rate = self.requests_per_second;
        ReleaseLoad {
            sessions: self.sessions,
            pinned: self.sessions,
            in_flight: rate / 10,
            request_rate: rate as f64,
            mean_session_s: 60.0,
        }
    }

    fn after_entry(&mut self, entry: Option<TimelineEntry>) {
        let Some(entry) = entry else { return };
        let (kind, because) = (entry.event.kind(), &entry.because);
        let then = entry.planned_effects.join(", ");
        let arrow = if then.is_empty() { "" } else { " -> " };
        writeln!(self.timeline, "{} {kind}: {because}{arrow}{then}", entry.moment).unwrap();
        self.open_bake();
        for (ticket, effect) in std::mem::take(&mut self.host.pending_effects) {
            match effect {
                Effect::Start(_) => self.later.push((self.blocks + BLOCKS_START, ticket, effect)),
                Effect::Drain(..) if self.requests_hang => (),
                Effect::Drain(..) => self.later.push((self.blocks + BLOCKS_DRAIN, ticket, effect)),
                Effect::Probe(_) | Effect::Cut(_) => self.later.push((self.blocks, ticket, effect)),
                _ if self.proxy_silent => (),
                _ => {
                    let answer = self.host.deliver(ticket, &effect);
                    if let Effect::Assign(on_trial, _, step) = &effect {
                        self.observe(on_trial.number, Observation::Step(*step));
                    }
                    answer.into_iter().for_each(|answer| self.handle_event(answer));
                }
            }
        }
    }

    /// Advances by a quarter of a second and runs the same steps as the daemon.
    fn run_block(&mut self) {
        self.host.now = self.host.now + BLOCK;
        self.blocks += 1;
        let (due, later): (Vec<_>, Vec<_>) =
            self.later.drain(..).partition(|(at, ..)| *at <= self.blocks);
        self.later = later;
        for (_, ticket, effect) in due {
            let answer = self.effect_result(ticket, &effect);
            answer.into_iter().for_each(|answer| self.handle_event(answer));
        }
        let now = self.host.now;
        let releases: Vec<Release> =
            self.host.watch().phase().required_releases().into_iter().cloned().collect();
        let fast = self.host.machine.probes_fast(now);
        if fast || self.blocks.is_multiple_of(BLOCKS_PROBE) {
            for Release { version, number, .. } in &releases {
                let reply = self.behaviour(version).probe.clone();
                self.observe(*number, Observation::Probe(reply));
            }
        }
        if let Some((on_trial, step)) = self.host.releases.assigned {
            self.serve_arms(&releases, on_trial, step);
        }
        let is_split = self.host.releases.assigned.is_some();
        for Release { version, number, .. } in releases.iter().filter(|_| !is_split) {
            let routed = self.host.releases.routed == Some(*number);
            let n =
                if routed { self.requests_per_second as f64 * BLOCK.as_secs_f64() } else { 0.0 };
            let counts = self.behaviour(version).serve(n);
            self.observe(*number, Observation::Block(BLOCK_MS, counts));
        }
        if self.scrape_settings.is_some() && self.blocks.is_multiple_of(BLOCKS_SCRAPE) {
            for Release { version, number, .. } in &releases {
                let ReleaseBehaviour {
                    own_counters: (total, bad),
                    own_counters_since: started,
                    ref scrape,
                    ..
                } = *self.behaviour(version);
                let sample =
                    ScrapeResult::Sample { total, bad, started: Some(started), bad_missing: false };
                let seen = Observation::Scraped(scrape.clone().unwrap_or(sample));
                self.observe(*number, seen);
            }
        }
        self.handle(Input::EndOfBlock);
    }

    fn effect_result(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        let (sessions, in_flight) = (self.sessions, self.requests_per_second / 10);
        match effect {
            Effect::Start(release) => {
                if !self.behaviour(&release.version).starts {
                    self.later.push((self.blocks + 1, ticket, effect.clone()));
                    return None;
                }
                let active = self.host.watch().phase().active().map(|it| it.version.clone());
                let active = active.filter(|_| !self.call_usage.is_empty());
                let active = active.map(|version| self.behaviour(&version).contract());
                let new = Some(self.behaviour(&release.version).contract());
                let (in_use, used) =
                    (self.protocols_in_use.iter().cloned().collect(), self.call_usage.clone());
                self.behaviour(&release.version).probe = ProbeResult::Ok;
                Some(Event::Ready(
                    ticket,
                    Box::new(ReadinessReport {
                        new,
                        active,
                        protocols_in_use: in_use,
                        call_usage: used,
                        users: self.users_ready,
                        ..ReadinessReport::default()
                    }),
                ))
            }
            Effect::Probe(release) => {
                if self.changed_artifact.as_ref() == Some(&release.version) {
                    let why = "sha256:aa was deployed, sha256:bb is there".to_owned();
                    self.handle_event(Event::ArtifactChanged(ticket, why));
                }
                let reply = self.behaviour(&release.version).probe.clone();
                Some(Event::Probed(ticket, reply))
            }
            Effect::Cut(_) => {
                let cost = DrainCost {
                    error_responses: in_flight,
                    sessions_ended: sessions,
                    ..DrainCost::default()
                };
                self.host.deliver(ticket, effect).map(|_| Event::NothingInFlight(ticket, cost))
            }
            _ => self.host.deliver(ticket, effect),
        }
    }

    fn observe(&mut self, release: ReleaseNumber, observation: Observation) {
        self.handle(Input::Signal(Signal { release, observation }));
    }

    fn open_bake(&mut self) {
        let opened = self.host.now;
        if let Some(JudgeToOpen { release, warm, after_bake }) = self.host.machine.judge_to_open() {
            let history = History::default();
            let opening = BakeOpening { release, warm, after_bake, opened, history };
            self.host.machine.open_judge(self.host.now, opening, []);
        }
    }

    /// Applies the settings of the story to the machine.
    fn configure(&mut self) {
        let mut settings = settings(&self.host.policy);
        settings.slo.scrape = self.scrape_settings;
        if self.scrape_settings.is_some() {
            let (indicator, error_budget, weight) = (Indicator::Scraped, 0.005, 0.1);
            settings.slo.objectives.push(Objective { indicator, error_budget, weight });
        }
        self.host.machine.configure(self.host.now, settings);
        self.open_bake();
    }
}

fn deploy_request(version: &str, flags: &[&str]) -> DeployRequest {
    let has = |flag| flags.contains(&flag);
    let slot = flags.iter().find_map(|flag| flag.strip_prefix("--slot="));
    DeployRequest {
        version: version.to_owned(),
        slot: slot.map(|slot| Slot(slot.to_owned())),
        freeze: has("--freeze"),
        force: has("--force"),
        strict: has("--strict"),
        allow_quarantined: has("--allow-quarantined"),
        allow_version_drop: has("--allow-version-drop"),
        over_breach: has("--over-breach"),
        without_net: has("--without-net"),
        restart: has("--restart"),
        ..DeployRequest::default()
    }
}

fn after_bake(what: &str) -> AfterBake {
    match what {
        "act" => AfterBake::Act,
        "off" => AfterBake::Off,
        _ => AfterBake::Page,
    }
}
