//! One signal, one short line of text; a stretch of empty blocks, one line as well.
//!
//! ```text
//! 250 2 b 250 o25 d25      after 250 ms release 2: a block of 250 ms, 25 ok, 25 timed
//! 3 1 p                    3 ms later release 1 passed its probe
//! e 250 2,1 250*11,251     12 rounds of empty blocks of release 2 and then 1, and their steps
//! ```
//!
//! Texts are JSON strings, numbers with a fraction are the shortest that read back the same.

use std::fmt::Write as _;

use crate::model::{
    CallKey, Counts, Observation, ProbeResult, ReleaseNumber, ScrapeResult, Signal,
};

/// The letters of the counts in a block, in the order in which they are written.
const COUNT_LETTERS: [char; 11] = ['o', 'f', 't', 'c', 'n', 's', 'd', 'a', 'x', 'l', 'k'];
/// Releases that can take turns in one stretch of empty blocks.
const RELEASES_MAX: usize = 8;
/// Steps of a stretch that are kept apart before it is written.
const STEPS_MAX: usize = 256;
/// Blocks that one line may stand for: a day of one release.
const REPEATS_MAX: u64 = 345_600;

/// What one line stands for.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::record) enum Line {
    /// One signal, so many milliseconds after the one before.
    Single(u64, Signal),
    /// Rounds of empty blocks.
    IdleRun(IdleRun),
}

/// Rounds of empty blocks of the same length: each release once, at the same moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::record) struct IdleRun {
    span: u32,
    releases: Vec<ReleaseNumber>,
    /// Milliseconds from one round to the next, and how often in a row.
    steps: Vec<(u64, u64)>,
    /// Blocks of the last round that have come; 0 when it is whole.
    partial_round: usize,
}

impl IdleRun {
    /// Begins with one block.
    pub(in crate::record) fn start(step: u64, release: ReleaseNumber, span: u32) -> Self {
        Self { span, releases: vec![release], steps: vec![(step, 1)], partial_round: 0 }
    }

    /// Takes one more block in; false if it does not belong to the stretch.
    pub(in crate::record) fn try_extend(
        &mut self,
        step: u64,
        release: ReleaseNumber,
        span: u32,
    ) -> bool {
        if span != self.span {
            return false;
        }
        let first_round = matches!(self.steps.as_slice(), [(_, 1)]) && self.partial_round == 0;
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
        if let Some((last, times)) = self.steps.last_mut()
            && *last == step
            && *times < REPEATS_MAX
        {
            *times += 1;
            return true;
        }
        let room = self.steps.len() < STEPS_MAX;
        if room {
            self.steps.push((step, 1));
        }
        room
    }

    /// As text: whole rounds in one line, what is left of the last round as blocks of its own.
    pub(in crate::record) fn encode(&self, text: &mut String) {
        let mut steps = self.steps.clone();
        let mut partial_blocks = Vec::new();
        if self.partial_round > 0
            && let Some((step, times)) = steps.last_mut()
        {
            let left = self.releases.iter().take(self.partial_round).enumerate();
            partial_blocks =
                left.map(|(turn, release)| (if turn == 0 { *step } else { 0 }, *release)).collect();
            *times -= 1;
            steps.retain(|(_, times)| *times > 0);
        }
        let turns: Vec<_> = self.releases.iter().map(ToString::to_string).collect();
        let steps: Vec<_> =
            steps.iter().map(|(step, times)| encode_repeat(*step, *times)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "e {} {} {}", self.span, turns.join(","), steps.join(","));
        for (step, release) in partial_blocks {
            let seen = Observation::Block(self.span, Counts::default());
            encode_signal(step, &Signal { release, observation: seen }, text);
        }
    }

    /// Every block of it, with the milliseconds since the one before.
    pub(in crate::record) fn into_blocks(self) -> impl Iterator<Item = (u64, Signal)> {
        let Self { span, releases: turns, steps, .. } = self;
        let rounds = steps.into_iter().flat_map(|(step, times)| (0..times).map(move |_| step));
        rounds.flat_map(move |step| {
            let block = move |(turn, release)| {
                let seen = Observation::Block(span, Counts::default());
                (if turn == 0 { step } else { 0 }, Signal { release, observation: seen })
            };
            turns.clone().into_iter().enumerate().map(block)
        })
    }

    /// How many blocks it stands for.
    pub(in crate::record) fn len(&self) -> u64 {
        let rounds: u64 = self.steps.iter().map(|(_, times)| *times).sum();
        rounds.saturating_mul(self.releases.len() as u64)
    }

    fn decode(text: &str) -> Option<Self> {
        let (span, rest) = text.split_once(' ')?;
        let (turns, steps) = rest.split_once(' ')?;
        let turns: Option<Vec<_>> =
            turns.split(',').map(|it| it.parse().ok().map(ReleaseNumber)).collect();
        let step = |step: &str| {
            let (step, times) = step.split_once('*').unwrap_or((step, "1"));
            let times: u64 = times.parse().ok()?;
            (1..=REPEATS_MAX).contains(&times).then_some((step.parse().ok()?, times))
        };
        let steps: Option<Vec<_>> = steps.split(',').map(step).collect();
        let idle =
            Self { span: span.parse().ok()?, releases: turns?, steps: steps?, partial_round: 0 };
        (idle.releases.len() <= RELEASES_MAX && idle.steps.len() <= STEPS_MAX).then_some(idle)
    }
}

/// Adds the line of a signal that came `try_add_step` milliseconds after the one before.
pub(in crate::record) fn encode_signal(step: u64, signal: &Signal, text: &mut String) {
    let release = signal.release;
    // Writing to a string does not fail.
    let _ = write!(text, "{step} {release} ");
    let _ = match &signal.observation {
        Observation::Block(span, counts) => writeln!(text, "b {span}{}", encode_counts(counts)),
        Observation::Calls(calls) => writeln!(text, "c {}", encode_calls(calls)),
        Observation::Shadow(n, bad) => writeln!(text, "h {n} {bad}"),
        Observation::Probe(ProbeResult::Ok) => writeln!(text, "p"),
        Observation::Probe(ProbeResult::TimedOut) => writeln!(text, "pl"),
        Observation::Probe(ProbeResult::Refused) => writeln!(text, "pr"),
        Observation::Probe(ProbeResult::Unexpected(what)) => {
            writeln!(text, "pw {}", to_json_string(what))
        }
        Observation::Exited(how) => writeln!(text, "x {}", to_json_string(how)),
        Observation::Scraped(ScrapeResult::Sample { total, bad, started: Some(started) }) => {
            writeln!(text, "s {total:?} {bad:?} {started:?}")
        }
        Observation::Scraped(ScrapeResult::Sample { total, bad, started: None }) => {
            writeln!(text, "s {total:?} {bad:?}")
        }
        Observation::Scraped(ScrapeResult::Down(what)) => {
            writeln!(text, "sd {}", to_json_string(what))
        }
        Observation::Scraped(ScrapeResult::NotANumber) => writeln!(text, "sn"),
        Observation::Scraped(ScrapeResult::Missing) => writeln!(text, "sm"),
        Observation::Scraped(ScrapeResult::Stale(seconds)) => writeln!(text, "st {seconds}"),
    };
}

/// What a line without its end stands for.
pub(in crate::record) fn decode_line(line: &str) -> Option<Line> {
    if let Some(idle) = line.strip_prefix("e ") {
        return IdleRun::decode(idle).map(Line::IdleRun);
    }
    let mut parts = line.splitn(4, ' ');
    let step = parts.next()?.parse().ok()?;
    let release = ReleaseNumber(parts.next()?.parse().ok()?);
    let seen = decode_observation(parts.next()?, parts.next().unwrap_or_default())?;
    Some(Line::Single(step, Signal { release, observation: seen }))
}

fn decode_observation(kind: &str, rest: &str) -> Option<Observation> {
    Some(match (kind, rest) {
        ("b", rest) => {
            let (span, counts) = rest.split_once(' ').unwrap_or((rest, ""));
            Observation::Block(span.parse().ok()?, decode_counts(counts)?)
        }
        ("c", rest) => Observation::Calls(decode_calls(rest)?),
        ("h", rest) => {
            let (n, bad) = rest.split_once(' ')?;
            Observation::Shadow(n.parse().ok()?, bad.parse().ok()?)
        }
        ("p", "") => Observation::Probe(ProbeResult::Ok),
        ("pl", "") => Observation::Probe(ProbeResult::TimedOut),
        ("pr", "") => Observation::Probe(ProbeResult::Refused),
        ("pw", what) => {
            Observation::Probe(ProbeResult::Unexpected(serde_json::from_str(what).ok()?))
        }
        ("x", how) => Observation::Exited(serde_json::from_str(how).ok()?),
        ("s", sample) => Observation::Scraped(decode_sample(sample)?),
        ("sd", what) => Observation::Scraped(ScrapeResult::Down(serde_json::from_str(what).ok()?)),
        ("sn", "") => Observation::Scraped(ScrapeResult::NotANumber),
        ("sm", "") => Observation::Scraped(ScrapeResult::Missing),
        ("st", seconds) => Observation::Scraped(ScrapeResult::Stale(seconds.parse().ok()?)),
        _ => return None,
    })
}

fn decode_sample(text: &str) -> Option<ScrapeResult> {
    let mut numbers = text.split(' ').map(|it| it.parse::<f64>().ok());
    let (total, bad) = (numbers.next()??, numbers.next()??);
    let started = match numbers.next() {
        Some(started) => Some(started?),
        None => None,
    };
    numbers.next().is_none().then_some(ScrapeResult::Sample { total, bad, started })
}

/// Those that are not 0, each with a space before it.
fn encode_counts(counts: &Counts) -> String {
    let mut copy = *counts;
    let mut text = String::new();
    for (letter, count) in COUNT_LETTERS.into_iter().zip(count_fields(&mut copy)) {
        if *count > 0 {
            let _ = write!(text, " {letter}{count}");
        }
    }
    text
}

fn decode_counts(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    for word in text.split(' ').filter(|it| !it.is_empty()) {
        let mut rest = word.chars();
        let letter = rest.next()?;
        let index = COUNT_LETTERS.iter().position(|it| *it == letter)?;
        *count_fields(&mut counts).into_iter().nth(index)? = rest.as_str().parse().ok()?;
    }
    Some(counts)
}

/// In the order of [`COUNT_LETTERS`]. Taken apart by name, so that a new field is not forgotten.
fn count_fields(counts: &mut Counts) -> [&mut u64; 11] {
    let Counts {
        ok,
        server_fault,
        tool_fault,
        client_fault,
        neutral,
        slow,
        with_latency: timed,
        repeatable: safe,
        repeatable_failed: safe_bad,
        streams_ended: streams,
        streams_broken: broken,
    } = counts;
    [
        ok,
        server_fault,
        tool_fault,
        client_fault,
        neutral,
        slow,
        timed,
        safe,
        safe_bad,
        streams,
        broken,
    ]
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

fn encode_repeat(step: u64, times: u64) -> String {
    if times == 1 { step.to_string() } else { format!("{step}*{times}") }
}
