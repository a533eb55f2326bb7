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

use crate::model::{Call, Counts, Number, Reply, Scrape, Seen, Signal};

/// The letters of the counts in a block, in the order in which they are written.
const LETTERS: [char; 11] = ['o', 'f', 't', 'c', 'n', 's', 'd', 'a', 'x', 'l', 'k'];
/// Releases that can take turns in one stretch of empty blocks.
const TURNS_MAX: usize = 8;
/// Steps of a stretch that are kept apart before it is written.
const STEPS_MAX: usize = 256;
/// Blocks that one line may stand for: a day of one release.
const ROUNDS_MAX: u64 = 345_600;

/// What one line stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// One signal, so many milliseconds after the one before.
    One(u64, Signal),
    /// Rounds of empty blocks.
    Idle(Idle),
}

/// Rounds of empty blocks of the same length: each release once, at the same moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Idle {
    span: u32,
    turns: Vec<Number>,
    /// Milliseconds from one round to the next, and how often in a row.
    steps: Vec<(u64, u64)>,
    /// Blocks of the last round that have come; 0 when it is whole.
    begun: usize,
}

impl Idle {
    /// Begins with one block.
    pub(super) fn begin(step: u64, release: Number, span: u32) -> Self {
        Self { span, turns: vec![release], steps: vec![(step, 1)], begun: 0 }
    }

    /// Takes one more block in; false if it does not belong to the stretch.
    pub(super) fn take(&mut self, step: u64, release: Number, span: u32) -> bool {
        if span != self.span {
            return false;
        }
        let first_round = matches!(self.steps.as_slice(), [(_, 1)]) && self.begun == 0;
        if first_round && step == 0 && !self.turns.contains(&release) {
            let room = self.turns.len() < TURNS_MAX;
            if room {
                self.turns.push(release);
            }
            return room;
        }
        let next = self.turns.get(self.begun) == Some(&release);
        if !next || (self.begun > 0 && step != 0) {
            return false;
        }
        if self.begun == 0 && !self.step(step) {
            return false;
        }
        self.begun = (self.begun + 1) % self.turns.len();
        true
    }

    fn step(&mut self, step: u64) -> bool {
        if let Some((last, times)) = self.steps.last_mut()
            && *last == step
            && *times < ROUNDS_MAX
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
    pub(super) fn write(&self, text: &mut String) {
        let mut steps = self.steps.clone();
        let mut rest = Vec::new();
        if self.begun > 0
            && let Some((step, times)) = steps.last_mut()
        {
            let left = self.turns.iter().take(self.begun).enumerate();
            rest =
                left.map(|(turn, release)| (if turn == 0 { *step } else { 0 }, *release)).collect();
            *times -= 1;
            steps.retain(|(_, times)| *times > 0);
        }
        let turns: Vec<_> = self.turns.iter().map(ToString::to_string).collect();
        let steps: Vec<_> = steps.iter().map(|(step, times)| repeated(*step, *times)).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "e {} {} {}", self.span, turns.join(","), steps.join(","));
        for (step, release) in rest {
            let seen = Seen::Block(self.span, Counts::default());
            write(step, &Signal { release, seen }, text);
        }
    }

    /// Every block of it, with the milliseconds since the one before.
    pub(super) fn blocks(self) -> impl Iterator<Item = (u64, Signal)> {
        let Self { span, turns, steps, .. } = self;
        let rounds = steps.into_iter().flat_map(|(step, times)| (0..times).map(move |_| step));
        rounds.flat_map(move |step| {
            let block = move |(turn, release)| {
                let seen = Seen::Block(span, Counts::default());
                (if turn == 0 { step } else { 0 }, Signal { release, seen })
            };
            turns.clone().into_iter().enumerate().map(block)
        })
    }

    /// How many blocks it stands for.
    pub(super) fn len(&self) -> u64 {
        let rounds: u64 = self.steps.iter().map(|(_, times)| *times).sum();
        rounds.saturating_mul(self.turns.len() as u64)
    }

    fn read(text: &str) -> Option<Self> {
        let (span, rest) = text.split_once(' ')?;
        let (turns, steps) = rest.split_once(' ')?;
        let turns: Option<Vec<_>> =
            turns.split(',').map(|it| it.parse().ok().map(Number)).collect();
        let step = |step: &str| {
            let (step, times) = step.split_once('*').unwrap_or((step, "1"));
            let times: u64 = times.parse().ok()?;
            (1..=ROUNDS_MAX).contains(&times).then_some((step.parse().ok()?, times))
        };
        let steps: Option<Vec<_>> = steps.split(',').map(step).collect();
        let idle = Self { span: span.parse().ok()?, turns: turns?, steps: steps?, begun: 0 };
        (idle.turns.len() <= TURNS_MAX && idle.steps.len() <= STEPS_MAX).then_some(idle)
    }
}

/// Adds the line of a signal that came `step` milliseconds after the one before.
pub(super) fn write(step: u64, signal: &Signal, text: &mut String) {
    let release = signal.release;
    // Writing to a string does not fail.
    let _ = write!(text, "{step} {release} ");
    let _ = match &signal.seen {
        Seen::Block(span, counts) => writeln!(text, "b {span}{}", brief(counts)),
        Seen::Calls(calls) => writeln!(text, "c {}", quoted_calls(calls)),
        Seen::Shadow(n, bad) => writeln!(text, "h {n} {bad}"),
        Seen::Probe(Reply::Ok) => writeln!(text, "p"),
        Seen::Probe(Reply::Late) => writeln!(text, "pl"),
        Seen::Probe(Reply::Refused) => writeln!(text, "pr"),
        Seen::Probe(Reply::Wrong(what)) => writeln!(text, "pw {}", quoted(what)),
        Seen::Exited(how) => writeln!(text, "x {}", quoted(how)),
        Seen::Scraped(Scrape::Sample { total, bad, started: Some(started) }) => {
            writeln!(text, "s {total:?} {bad:?} {started:?}")
        }
        Seen::Scraped(Scrape::Sample { total, bad, started: None }) => {
            writeln!(text, "s {total:?} {bad:?}")
        }
        Seen::Scraped(Scrape::Down(what)) => writeln!(text, "sd {}", quoted(what)),
        Seen::Scraped(Scrape::NotANumber) => writeln!(text, "sn"),
        Seen::Scraped(Scrape::Missing) => writeln!(text, "sm"),
        Seen::Scraped(Scrape::Stale(seconds)) => writeln!(text, "st {seconds}"),
    };
}

/// What a line without its end stands for.
pub(super) fn read(line: &str) -> Option<Line> {
    if let Some(idle) = line.strip_prefix("e ") {
        return Idle::read(idle).map(Line::Idle);
    }
    let mut parts = line.splitn(4, ' ');
    let step = parts.next()?.parse().ok()?;
    let release = Number(parts.next()?.parse().ok()?);
    let seen = seen(parts.next()?, parts.next().unwrap_or_default())?;
    Some(Line::One(step, Signal { release, seen }))
}

fn seen(kind: &str, rest: &str) -> Option<Seen> {
    Some(match (kind, rest) {
        ("b", rest) => {
            let (span, counts) = rest.split_once(' ').unwrap_or((rest, ""));
            Seen::Block(span.parse().ok()?, counts_of(counts)?)
        }
        ("c", rest) => Seen::Calls(calls_of(rest)?),
        ("h", rest) => {
            let (n, bad) = rest.split_once(' ')?;
            Seen::Shadow(n.parse().ok()?, bad.parse().ok()?)
        }
        ("p", "") => Seen::Probe(Reply::Ok),
        ("pl", "") => Seen::Probe(Reply::Late),
        ("pr", "") => Seen::Probe(Reply::Refused),
        ("pw", what) => Seen::Probe(Reply::Wrong(serde_json::from_str(what).ok()?)),
        ("x", how) => Seen::Exited(serde_json::from_str(how).ok()?),
        ("s", sample) => Seen::Scraped(sample_of(sample)?),
        ("sd", what) => Seen::Scraped(Scrape::Down(serde_json::from_str(what).ok()?)),
        ("sn", "") => Seen::Scraped(Scrape::NotANumber),
        ("sm", "") => Seen::Scraped(Scrape::Missing),
        ("st", seconds) => Seen::Scraped(Scrape::Stale(seconds.parse().ok()?)),
        _ => return None,
    })
}

fn sample_of(text: &str) -> Option<Scrape> {
    let mut numbers = text.split(' ').map(|it| it.parse::<f64>().ok());
    let (total, bad) = (numbers.next()??, numbers.next()??);
    let started = match numbers.next() {
        Some(started) => Some(started?),
        None => None,
    };
    numbers.next().is_none().then_some(Scrape::Sample { total, bad, started })
}

/// Those that are not 0, each with a space before it.
fn brief(counts: &Counts) -> String {
    let mut copy = *counts;
    let mut text = String::new();
    for (letter, count) in LETTERS.into_iter().zip(fields(&mut copy)) {
        if *count > 0 {
            let _ = write!(text, " {letter}{count}");
        }
    }
    text
}

fn counts_of(text: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    for word in text.split(' ').filter(|it| !it.is_empty()) {
        let mut rest = word.chars();
        let letter = rest.next()?;
        let index = LETTERS.iter().position(|it| *it == letter)?;
        *fields(&mut counts).into_iter().nth(index)? = rest.as_str().parse().ok()?;
    }
    Some(counts)
}

/// In the order of [`LETTERS`]. Taken apart by name, so that a new field is not forgotten.
fn fields(counts: &mut Counts) -> [&mut u64; 11] {
    let Counts {
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

fn quoted_calls(calls: &[(Call, Counts)]) -> String {
    let rows: Vec<_> = calls
        .iter()
        .map(|((method, name), counts)| (method, name, brief(counts).trim_start().to_owned()))
        .collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

fn calls_of(text: &str) -> Option<Vec<(Call, Counts)>> {
    let rows: Vec<(Box<str>, Box<str>, String)> = serde_json::from_str(text).ok()?;
    let row = |(method, name, counts): (_, _, String)| Some(((method, name), counts_of(&counts)?));
    rows.into_iter().map(row).collect()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn repeated(step: u64, times: u64) -> String {
    if times == 1 { step.to_string() } else { format!("{step}*{times}") }
}
