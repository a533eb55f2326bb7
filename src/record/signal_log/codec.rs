//! The format of a signal log: a header, then one short line of text per signal, or per run of empty
//! blocks.
//!
//! ```text
//! rollbackd-signals 1 {"release":2,"warm":1,...}      a SignalLogHeader
//! 250 2 b 250 o25 d25      after 250 ms release 2: a block of 250 ms, 25 ok, 25 with a latency
//! 3 1 p                    3 ms later release 1 passed its probe
//! e 250 2,1 250*11,251     12 rounds of empty blocks of release 2 and then 1, with the steps between
//! 0 2 g 1 3 50000 50000    a step of the ramp: its number, of how many, the share and the bound of coins
//! 250 2 t T03f5,1c2d,1700  a request on trial: subject and call by hash, and the second of its start
//! 250 2 f 3 1 ["",[[7,9,"s2"]],[]]   2 failures are of source 7, one of 3 active ones
//! full                     the log has reached its maximum size
//! ```
//!
//! Texts are JSON strings, numbers with a fraction are the shortest that read back the same.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::model::{
    CallKey, Counts, History, Moment, Observation, ProbeResult, ReleaseNumber, ScrapeResult,
    Signal, StartCause,
};
use crate::record::signal_log::counts_codec::{decode_counts, encode_counts};
use crate::record::signal_log::sources_codec::{decode_sources, encode_sources};
use crate::record::signal_log::trial_codec::{
    decode_cells, decode_pairs, decode_step, encode_cells, encode_pairs, encode_step,
};

/// The first line begins with this; the number is the version of the format.
pub(in crate::record) const MAGIC: &str = "rollbackd-signals 1 ";
/// The last line of a log that has reached its maximum size.
pub(in crate::record) const END_MARKER: &str = "full";
/// Largest log of one deploy, in bytes.
pub const SIGNAL_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Releases in one run of empty blocks.
const RELEASES_MAX: usize = 8;
/// Different steps in one run of empty blocks.
const STEPS_MAX: usize = 256;
/// How often one step may repeat: a day of blocks.
const REPEATS_MAX: u64 = 345_600;

/// What a bake began with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SignalLogHeader {
    /// The release on trial.
    pub release: ReleaseNumber,
    /// The release that could replace it.
    pub warm: Option<ReleaseNumber>,
    /// When the bake began.
    pub opened: Moment,
    /// The record of the release before it.
    pub history: History,
}

/// The content of one line.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::record) enum Line {
    /// One signal, and the milliseconds since the one before it.
    Single(u64, Signal),
    /// Rounds of empty blocks.
    IdleRun(IdleRun),
}

/// Rounds of empty blocks of the same length: each release once, at the same moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::record) struct IdleRun {
    span: u32,
    releases: Vec<ReleaseNumber>,
    steps: Vec<Step>,
    /// Blocks of the last round that have arrived; 0 when it is complete.
    partial_round: usize,
}

/// Rounds in a row with the same distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    /// Milliseconds from one round to the next.
    millis: u64,
    times: u64,
}

impl IdleRun {
    /// Begins with one block.
    pub(in crate::record) fn start(step: u64, release: ReleaseNumber, span: u32) -> Self {
        Self {
            span,
            releases: vec![release],
            steps: vec![Step { millis: step, times: 1 }],
            partial_round: 0,
        }
    }

    /// Adds one block; false if it does not continue the run.
    pub(in crate::record) fn try_extend(
        &mut self,
        step: u64,
        release: ReleaseNumber,
        span: u32,
    ) -> bool {
        if span != self.span {
            return false;
        }
        let first_round =
            matches!(self.steps.as_slice(), [Step { times: 1, .. }]) && self.partial_round == 0;
        if first_round && step == 0 && !self.releases.contains(&release) {
            let room = self.releases.len() < RELEASES_MAX;
            if room {
                self.releases.push(release);
            }
            return room;
        }
        let next = self.releases.get(self.partial_round) == Some(&release);
        if !next || (self.partial_round > 0 && step != 0) {
            return false;
        }
        if self.partial_round == 0 && !self.try_add_step(step) {
            return false;
        }
        self.partial_round = (self.partial_round + 1) % self.releases.len();
        true
    }

    fn try_add_step(&mut self, step: u64) -> bool {
        if let Some(last) = self.steps.last_mut()
            && last.millis == step
            && last.times < REPEATS_MAX
        {
            last.times += 1;
            return true;
        }
        let room = self.steps.len() < STEPS_MAX;
        if room {
            self.steps.push(Step { millis: step, times: 1 });
        }
        room
    }

    /// Writes the complete rounds as one line, and the blocks of an incomplete round as one line each.
    pub(in crate::record) fn encode(&self, text: &mut String) {
        let mut steps = self.steps.clone();
        let mut partial_blocks = Vec::new();
        if self.partial_round > 0
            && let Some(last) = steps.last_mut()
        {
            let partial = self.releases.iter().take(self.partial_round).enumerate();
            partial_blocks = partial
                .map(|(index, release)| (if index == 0 { last.millis } else { 0 }, *release))
                .collect();
            last.times -= 1;
            steps.retain(|step| step.times > 0);
        }
        let releases: Vec<_> = self.releases.iter().map(ToString::to_string).collect();
        let steps: Vec<_> = steps.iter().map(|step| step.encode()).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "e {} {} {}", self.span, releases.join(","), steps.join(","));
        for (step, release) in partial_blocks {
            let observation = Observation::Block(self.span, Counts::default());
            encode_signal(step, &Signal { release, observation }, text);
        }
    }

    /// Each block, with the milliseconds since the one before it.
    pub(in crate::record) fn into_blocks(self) -> impl Iterator<Item = (u64, Signal)> {
        let Self { span, releases, steps, .. } = self;
        let rounds = steps.into_iter().flat_map(|step| (0..step.times).map(move |_| step.millis));
        rounds.flat_map(move |step| {
            let block = move |(index, release)| {
                let observation = Observation::Block(span, Counts::default());
                (if index == 0 { step } else { 0 }, Signal { release, observation })
            };
            releases.clone().into_iter().enumerate().map(block)
        })
    }

    /// The number of blocks.
    pub(in crate::record) fn len(&self) -> u64 {
        let rounds: u64 = self.steps.iter().map(|step| step.times).sum();
        rounds.saturating_mul(self.releases.len() as u64)
    }

    fn decode(text: &str) -> Option<Self> {
        let (span, rest) = text.split_once(' ')?;
        let (releases, steps) = rest.split_once(' ')?;
        let releases: Option<Vec<_>> =
            releases.split(',').map(|it| it.parse().ok().map(ReleaseNumber)).collect();
        let steps: Option<Vec<_>> = steps.split(',').map(Step::decode).collect();
        let (span, releases, steps) = (span.parse().ok()?, releases?, steps?);
        let idle = Self { span, releases, steps, partial_round: 0 };
        (idle.releases.len() <= RELEASES_MAX && idle.steps.len() <= STEPS_MAX).then_some(idle)
    }
}

impl Step {
    fn encode(self) -> String {
        match self.times {
            1 => self.millis.to_string(),
            times => format!("{}*{times}", self.millis),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (millis, times) = text.split_once('*').unwrap_or((text, "1"));
        let times: u64 = times.parse().ok()?;
        (1..=REPEATS_MAX).contains(&times).then_some(Self { millis: millis.parse().ok()?, times })
    }
}

/// Adds the line of a signal that arrived `step` milliseconds after the one before it.
pub(in crate::record) fn encode_signal(step: u64, signal: &Signal, text: &mut String) {
    let release = signal.release;
    // Writing to a string does not fail.
    let _ = write!(text, "{step} {release} ");
    let _ = match &signal.observation {
        Observation::Block(span, counts) => writeln!(text, "b {span}{}", encode_counts(counts)),
        Observation::Calls(calls) => writeln!(text, "c {}", encode_calls(calls)),
        Observation::Sources(sources) => writeln!(text, "f {}", encode_sources(sources)),
        Observation::Shadow(n, bad) => writeln!(text, "h {n} {bad}"),
        Observation::Cells(cells) => writeln!(text, "t{}", encode_cells(cells)),
        Observation::KnownFailing(pairs) => writeln!(text, "k{}", encode_pairs(pairs)),
        Observation::Step(step) => writeln!(text, "g {}", encode_step(*step)),
        Observation::Probe(ProbeResult::Ok) => writeln!(text, "p"),
        Observation::Probe(ProbeResult::TimedOut) => writeln!(text, "pl"),
        Observation::Probe(ProbeResult::Refused) => writeln!(text, "pr"),
        Observation::Probe(ProbeResult::Unexpected(what)) => {
            writeln!(text, "pw {}", to_json_string(what))
        }
        Observation::Exited(how) => writeln!(text, "x {}", to_json_string(how)),
        Observation::Starting(StartCause::External, allowed) => writeln!(text, "i {allowed}"),
        Observation::Starting(StartCause::Exit, allowed) => writeln!(text, "ix {allowed}"),
        Observation::Scraped(ScrapeResult::Sample { total, bad, started, bad_missing }) => {
            let kind = if *bad_missing { "sb" } else { "s" };
            let started = started.map(|it| format!(" {it:?}")).unwrap_or_default();
            writeln!(text, "{kind} {total:?} {bad:?}{started}")
        }
        Observation::Scraped(ScrapeResult::Down(what)) => {
            writeln!(text, "sd {}", to_json_string(what))
        }
        Observation::Scraped(ScrapeResult::NotANumber) => writeln!(text, "sn"),
        Observation::Scraped(ScrapeResult::Missing) => writeln!(text, "sm"),
        Observation::Scraped(ScrapeResult::Stale(seconds)) => writeln!(text, "st {seconds}"),
        Observation::Scraped(ScrapeResult::WrongMetric(what)) => {
            writeln!(text, "sw {}", to_json_string(what))
        }
    };
}

/// Reads a line without its line break.
pub(in crate::record) fn decode_line(line: &str) -> Option<Line> {
    if let Some(idle) = line.strip_prefix("e ") {
        return IdleRun::decode(idle).map(Line::IdleRun);
    }
    let mut parts = line.splitn(4, ' ');
    let step = parts.next()?.parse().ok()?;
    let release = ReleaseNumber(parts.next()?.parse().ok()?);
    let observation = decode_observation(parts.next()?, parts.next().unwrap_or_default())?;
    Some(Line::Single(step, Signal { release, observation }))
}

fn decode_observation(kind: &str, rest: &str) -> Option<Observation> {
    Some(match (kind, rest) {
        ("b", rest) => {
            let (span, counts) = rest.split_once(' ').unwrap_or((rest, ""));
            Observation::Block(span.parse().ok()?, decode_counts(counts)?)
        }
        ("c", rest) => Observation::Calls(decode_calls(rest)?),
        ("f", sources) => Observation::Sources(decode_sources(sources)?),
        ("h", rest) => {
            let (n, bad) = rest.split_once(' ')?;
            Observation::Shadow(n.parse().ok()?, bad.parse().ok()?)
        }
        ("t", cells) => Observation::Cells(decode_cells(cells)?),
        ("k", pairs) => Observation::KnownFailing(decode_pairs(pairs)?),
        ("g", step) => Observation::Step(decode_step(step)?),
        ("p", "") => Observation::Probe(ProbeResult::Ok),
        ("pl", "") => Observation::Probe(ProbeResult::TimedOut),
        ("pr", "") => Observation::Probe(ProbeResult::Refused),
        ("pw", what) => {
            Observation::Probe(ProbeResult::Unexpected(serde_json::from_str(what).ok()?))
        }
        ("x", how) => Observation::Exited(serde_json::from_str(how).ok()?),
        ("i", allowed) => Observation::Starting(StartCause::External, allowed.parse().ok()?),
        ("ix", allowed) => Observation::Starting(StartCause::Exit, allowed.parse().ok()?),
        ("s", sample) => Observation::Scraped(decode_sample(sample, false)?),
        ("sb", sample) => Observation::Scraped(decode_sample(sample, true)?),
        ("sd", what) => Observation::Scraped(ScrapeResult::Down(serde_json::from_str(what).ok()?)),
        ("sn", "") => Observation::Scraped(ScrapeResult::NotANumber),
        ("sm", "") => Observation::Scraped(ScrapeResult::Missing),
        ("sw", what) => {
            Observation::Scraped(ScrapeResult::WrongMetric(serde_json::from_str(what).ok()?))
        }
        ("st", seconds) => Observation::Scraped(ScrapeResult::Stale(seconds.parse().ok()?)),
        _ => return None,
    })
}

fn decode_sample(text: &str, bad_missing: bool) -> Option<ScrapeResult> {
    let mut numbers = text.split(' ').map(|it| it.parse::<f64>().ok());
    let (total, bad) = (numbers.next()??, numbers.next()??);
    let started = match numbers.next() {
        Some(started) => Some(started?),
        None => None,
    };
    numbers.next().is_none().then_some(ScrapeResult::Sample { total, bad, started, bad_missing })
}

fn encode_calls(calls: &[(CallKey, Counts)]) -> String {
    let rows: Vec<_> = calls
        .iter()
        .map(|((method, name), counts)| {
            (method, name, encode_counts(counts).trim_start().to_owned())
        })
        .collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

fn decode_calls(text: &str) -> Option<Vec<(CallKey, Counts)>> {
    let rows: Vec<(Box<str>, Box<str>, String)> = serde_json::from_str(text).ok()?;
    let row =
        |(method, name, counts): (_, _, String)| Some(((method, name), decode_counts(&counts)?));
    rows.into_iter().map(row).collect()
}

fn to_json_string(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
