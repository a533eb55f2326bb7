//! Where a story is played: releases that behave as told, and the real judge and state machine,
//! joined as the daemon joins them.
#![expect(unreachable_pub, reason = "shared by tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rollbackd::decide::{Phase, Watch};
use rollbackd::judge::scraped::Scraping;
use rollbackd::judge::trial::Trial;
use rollbackd::judge::{About, BLOCK, BLOCK_MS, Baseline, Judge, Limits, Objective};
use rollbackd::model::{
    Actor, Call, Command, Decision, Deploy, Effect, Entry, Event, Fact, History, Load, Moment,
    Number, Order, Readiness, Release, Reply, Scrape, Seen, Signal, Ticket, Toll,
};

use crate::conduct::Conduct;
use crate::world::{World, policy, secs};

/// A new release needs so long to start, and to finish its requests in a drain.
const BLOCKS_START: u64 = 8;
const BLOCKS_DRAIN: u64 = 8;
const BLOCKS_PROBE: u64 = 4;
const BLOCKS_SCRAPE: u64 = 20;

pub struct Stage {
    pub timeline: String,
    world: World,
    trial: Trial,
    conduct: BTreeMap<String, Conduct>,
    traffic: u64,
    sessions: u64,
    in_use: Vec<String>,
    used: BTreeMap<Call, u64>,
    proxy_silent: bool,
    requests_hang: bool,
    /// The release whose artifact is not what was deployed.
    spoiled: Option<String>,
    /// How counters are read, and whether the bake waits for them.
    scraping: Option<Scraping>,
    blocks: u64,
    /// Effects that are carried out at a block to come.
    later: Vec<(u64, Ticket, Effect)>,
}

impl Stage {
    pub fn new() -> Self {
        let mut stage = Self {
            timeline: String::new(),
            world: World::new(policy()),
            trial: Trial::default(),
            conduct: BTreeMap::new(),
            traffic: 100,
            sessions: 20,
            in_use: vec!["2025-11-25".to_owned()],
            used: BTreeMap::new(),
            proxy_silent: false,
            requests_hang: false,
            spoiled: None,
            scraping: None,
            blocks: 0,
            later: Vec::new(),
        };
        stage.order(Command::Deploy(Deploy { version: "v1".to_owned(), ..Deploy::default() }));
        let blocks = BLOCKS_START + 1;
        (0..blocks).for_each(|_| stage.block());
        let because = "kept".to_owned();
        let accepted = Decision { because, fact: Fact::Accepted { verified: true }, then: vec![] };
        stage.world.commit(accepted);
        stage.open_trials();
        assert!(matches!(stage.world.watch.phase(), Phase::Steady { .. }));
        stage.timeline.clear();
        (stage.blocks, stage.world.now) = (0, Moment(0));
        stage
    }

    pub fn advance(&mut self, to: u64) {
        let to = Moment(to);
        assert!(self.world.now <= to, "time goes on");
        while self.world.now + BLOCK <= to {
            self.block();
        }
    }

    /// One line of a story. False if it makes no sense.
    pub fn play(&mut self, words: &[&str]) -> bool {
        let share = |word: &str| word.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        match *words {
            ["end"] => (),
            ["deploy", version, ref flags @ ..] => self.order(Command::Deploy(Deploy {
                version: version.to_owned(),
                freeze: flags.contains(&"--freeze"),
                force: flags.contains(&"--force"),
                strict: flags.contains(&"--strict"),
                ..Deploy::default()
            })),
            ["rollback", ref flags @ ..] => {
                let because = "users complain".to_owned();
                let (cut, force) = (flags.contains(&"--cut"), flags.contains(&"--force"));
                self.order(Command::Rollback { cut, force, because });
            }
            ["hold"] => self.order(Command::Hold { because: "under investigation".to_owned() }),
            ["resume"] => self.order(Command::Resume { because: "go on".to_owned() }),
            ["observe"] => self.world.policy.observe = true,
            ["start", n] => self.world.policy.start = secs(n.parse().unwrap()),
            ["drain", n] => self.world.policy.drain = secs(n.parse().unwrap()),
            ["limit", n] => self.world.policy.rollbacks_per_day = n.parse().unwrap(),
            ["traffic", n] => self.traffic = n.parse().unwrap(),
            ["sessions", n] => self.sessions = n.parse().unwrap(),
            ["sessions", "speak", protocol] => self.in_use.push(protocol.to_owned()),
            ["clients", "call", tool, calls] => {
                let call = ("tools/call".into(), tool.into());
                self.used.insert(call, calls.parse().unwrap());
            }
            ["proxy", "silent"] => self.proxy_silent = true,
            ["proxy", "answers"] => self.proxy_silent = false,
            ["requests", "hang"] => self.requests_hang = true,
            ["daemon", "down", until] => self.restart(until.parse().unwrap()),
            ["counters", policy] => {
                let every = BLOCK * BLOCKS_SCRAPE as u32;
                self.scraping = Some(Scraping { every, hold: policy == "hold" });
            }
            [version, "scrape", what] => self.scrape(version, what),
            [version, "fails", part] => self.conduct(version).fails = share(part),
            [version, "slow", part] => self.conduct(version).slow = share(part),
            [version, "tools", part] => self.conduct(version).tools = share(part),
            [version, "refuses"] => self.conduct(version).probe = Reply::Refused,
            [version, "hangs"] => self.conduct(version).probe = Reply::Late,
            [version, "broken"] => {
                let conduct = self.conduct(version);
                (conduct.starts, conduct.probe) = (false, Reply::Refused);
            }
            [version, "well"] => *self.conduct(version) = Conduct::default(),
            [version, "speaks", protocol] => {
                self.conduct(version).speaks = vec![protocol.to_owned()];
            }
            [version, "lists", ref tools @ ..] => {
                self.conduct(version).lists = tools.iter().map(ToString::to_string).collect();
            }
            [version, "dies"] => self.dies(version),
            [version, "spoiled"] => self.spoiled = Some(version.to_owned()),
            [version, "is", other] => self.found(version, other),
            _ => return false,
        }
        self.world.watch.set_policy(self.world.policy.clone());
        true
    }

    fn scrape(&mut self, version: &str, what: &str) {
        let now = self.world.now.0 as f64 / 1000.0;
        let conduct = self.conduct(version);
        conduct.scrape = match what {
            "down" => Some(Scrape::Down("connection refused".to_owned())),
            "nan" => Some(Scrape::NotANumber),
            "missing" => Some(Scrape::Missing),
            "stale" => Some(Scrape::Stale(400)),
            _ => None,
        };
        match what {
            "reset" => conduct.counted = (0.0, 0.0),
            "restart" => (conduct.counted, conduct.started) = ((0.0, 0.0), now),
            _ => (),
        }
    }

    fn conduct(&mut self, version: &str) -> &mut Conduct {
        self.conduct.entry(version.to_owned()).or_default()
    }

    fn order(&mut self, command: Command) {
        let by = Actor { uid: 1000, pid: 42 };
        match self.world.order(Order { by, command }) {
            Ok(entry) => self.followed(entry),
            Err(refusal) => writeln!(self.timeline, "{} {refusal}", self.world.now).unwrap(),
        }
    }

    fn happen(&mut self, event: &Event) {
        let entry = self.world.happen(event);
        self.followed(entry);
    }

    fn followed(&mut self, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let (kind, because) = (entry.fact.kind(), &entry.because);
        let then = entry.then.join(", ");
        let arrow = if then.is_empty() { "" } else { " -> " };
        writeln!(self.timeline, "{} {kind}: {because}{arrow}{then}", entry.moment).unwrap();
        self.open_trials();
        for (ticket, effect) in std::mem::take(&mut self.world.sent) {
            match effect {
                Effect::Start(_) => self.later.push((self.blocks + BLOCKS_START, ticket, effect)),
                Effect::Drain(..) if self.requests_hang => (),
                Effect::Drain(..) => self.later.push((self.blocks + BLOCKS_DRAIN, ticket, effect)),
                Effect::Probe(_) | Effect::Cut(_) => self.later.push((self.blocks, ticket, effect)),
                _ if self.proxy_silent => (),
                _ => {
                    let answer = self.world.deliver(ticket, &effect);
                    answer.into_iter().for_each(|answer| self.happen(&answer));
                }
            }
        }
    }

    /// The same steps as the daemon's, a quarter of a second later.
    fn block(&mut self) {
        self.world.now = self.world.now + BLOCK;
        self.blocks += 1;
        let (due, later): (Vec<_>, Vec<_>) =
            self.later.drain(..).partition(|(at, ..)| *at <= self.blocks);
        self.later = later;
        for (_, ticket, effect) in due {
            let answer = self.answer(ticket, &effect);
            answer.into_iter().for_each(|answer| self.happen(&answer));
        }
        let now = self.world.now;
        let releases: Vec<Release> =
            self.world.watch.phase().needed().into_iter().cloned().collect();
        let fast = self.trial.judge().is_some_and(|judge| judge.suspicious(now));
        if fast || self.blocks.is_multiple_of(BLOCKS_PROBE) {
            for Release { version, number, .. } in &releases {
                let reply = self.conduct(version).probe.clone();
                self.weigh(&Signal { release: *number, seen: Seen::Probe(reply) });
                self.judged();
            }
        }
        for Release { version, number, .. } in &releases {
            let routed = self.world.outside.routed == Some(*number);
            let n = if routed { self.traffic as f64 * BLOCK.as_secs_f64() } else { 0.0 };
            let counts = self.conduct(version).serve(n);
            self.weigh(&Signal { release: *number, seen: Seen::Block(BLOCK_MS, counts) });
        }
        if self.scraping.is_some() && self.blocks.is_multiple_of(BLOCKS_SCRAPE) {
            for Release { version, number, .. } in &releases {
                let Conduct { counted: (total, bad), started, ref scrape, .. } =
                    *self.conduct(version);
                let sample = Scrape::Sample { total, bad, started: Some(started) };
                let seen = Seen::Scraped(scrape.clone().unwrap_or(sample));
                self.weigh(&Signal { release: *number, seen });
            }
        }
        self.judged();
        if let Some((number, because)) = self.trial.recovered(now) {
            self.happen(&Event::Recovered(number, because));
        }
        self.happen(&Event::Due);
    }

    fn answer(&mut self, ticket: Ticket, effect: &Effect) -> Option<Event> {
        let (sessions, in_flight) = (self.sessions, self.traffic / 10);
        match effect {
            Effect::Start(release) => {
                if !self.conduct(&release.version).starts {
                    self.later.push((self.blocks + 1, ticket, effect.clone()));
                    return None;
                }
                let active = self.world.watch.phase().active().map(|it| it.version.clone());
                let active = active.filter(|_| !self.used.is_empty());
                let active = active.map(|version| self.conduct(&version).contract());
                let new = Some(self.conduct(&release.version).contract());
                let (in_use, used) = (self.in_use.iter().cloned().collect(), self.used.clone());
                self.conduct(&release.version).probe = Reply::Ok;
                Some(Event::Ready(ticket, Box::new(Readiness { new, active, in_use, used })))
            }
            Effect::Probe(release) => {
                if self.spoiled.as_ref() == Some(&release.version) {
                    let why = "sha256:aa was deployed, sha256:bb is there".to_owned();
                    self.happen(&Event::Spoiled(ticket, why));
                }
                let reply = self.conduct(&release.version).probe.clone();
                Some(Event::Probed(ticket, reply))
            }
            Effect::Cut(_) => {
                let toll = Toll { answered: in_flight, ended: sessions, ..Toll::default() };
                self.world.deliver(ticket, effect).map(|_| Event::Emptied(ticket, toll))
            }
            _ => self.world.deliver(ticket, effect),
        }
    }

    fn weigh(&mut self, signal: &Signal) {
        let now = self.world.now;
        self.trial.hear(now, signal);
    }

    fn judged(&mut self) {
        let Some(judge) = self.trial.judge() else { return };
        let verdict = judge.verdict(self.world.now);
        let (rate, sessions) = (self.traffic as f64, self.sessions);
        let in_flight = self.traffic / 10;
        let load = Load { sessions, bound: sessions, in_flight, rate, life: 60.0 };
        self.happen(&Event::Judged(verdict, load));
    }

    /// Somebody exchanged a release without a deploy.
    fn found(&mut self, version: &str, other: &str) {
        let (number, named) = (self.number(version), format!("weather {other}"));
        let because = format!("it called itself \"weather {version}\", and now {named:?}");
        self.happen(&Event::Found(number, Some(named), because));
    }

    fn number(&self, version: &str) -> Number {
        let needed = self.world.watch.phase().needed();
        needed.into_iter().find(|it| it.version == version).unwrap().number
    }

    fn dies(&mut self, version: &str) {
        let release = self.number(version);
        let seen = Seen::Exited("exit status 1".to_owned());
        self.weigh(&Signal { release, seen });
        self.judged();
    }

    /// The daemon dies, and reads its record when it is back.
    fn restart(&mut self, until: u64) {
        self.later.clear();
        let world = &mut self.world;
        world.outside.crash();
        world.now = Moment(0) + secs(until);
        let entries: Vec<Entry> =
            world.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        world.watch = Watch::restore(world.policy.clone(), &entries, world.now);
        let needed: Vec<Number> = world.watch.phase().needed().iter().map(|it| it.number).collect();
        world.outside.tidy(&needed);
        self.trial = Trial::default();
        let decision = world.watch.restored(world.now, 0);
        let entry = world.commit(decision);
        self.followed(entry);
    }

    fn open_trials(&mut self) {
        let (look, now) = (self.world.watch.phase().look(), self.world.now);
        let scrape = self.scraping;
        self.trial.follow(look, now, |active, warm| {
            let mut limits = Limits { scrape, ..limits() };
            if scrape.is_some() {
                let (about, budget, weight) = (About::Scraped, 0.005, 0.1);
                limits.objectives.push(Objective { about, budget, weight });
            }
            Judge::new(active, warm, limits, History::default(), now)
        });
    }
}

fn limits() -> Limits {
    let objective = |about, budget, weight| Objective { about, budget, weight };
    Limits {
        objectives: vec![
            objective(About::Availability, 0.005, 0.6),
            objective(About::Latency, 0.01, 0.2),
            objective(About::Tools, 0.05, 0.2),
        ],
        max_false_rollback: 0.001,
        min_effect: 2.0,
        burst: secs(5),
        bake: policy().bake,
        probes: 3,
        baseline: Baseline::Probes,
        shadow: true,
        scrape: None,
    }
}
