//! A recording that is read back.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::model::{Moment, Signal};
use crate::record::signal_log::codec;
use crate::record::signal_log::codec::Line;
use crate::record::signal_log::writer::{END_MARKER, MAGIC, SIGNAL_LOG_BYTES_MAX, SignalLogHeader};

/// Signals that one recording may stand for: a day of ten releases.
const SIGNALS_MAX: u64 = 4_000_000;

/// What a judge heard in one trial.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalLog {
    /// What the trial began with.
    pub header: SignalLogHeader,
    /// Whether there was no room for the rest.
    pub size_limit_reached: bool,
    /// Bytes of a torn end that are left out; 0 as a rule.
    pub truncated_bytes: u64,
    /// Bytes of what is good.
    pub(in crate::record) valid_bytes: u64,
    lines: String,
}

/// Why a recording can not be read: where, what, and what to do.
#[derive(Debug)]
pub struct SignalLogError {
    path: PathBuf,
    line: Option<usize>,
    what: String,
    help: &'static str,
}

/// Reads a recording. A last line that is torn is left out; a daemon that was killed leaves one.
///
/// # Errors
/// When the file can not be read, is of another kind or version, or has damage before its end.
pub fn read_signal_log(path: &Path) -> Result<SignalLog, SignalLogError> {
    let unreadable = |error: io::Error| SignalLogError {
        path: path.to_owned(),
        line: None,
        what: error.to_string(),
        help: "name a file that exists and may be read",
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(SIGNAL_LOG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    parse_signal_log(path, &bytes)
}

/// Reads the bytes of a recording; `path` stands in the messages.
///
/// # Errors
/// As [`read_signal_log`].
pub fn parse_signal_log(path: &Path, bytes: &[u8]) -> Result<SignalLog, SignalLogError> {
    let fail = |line, what: &str, help| {
        let (path, what) = (path.to_owned(), what.to_owned());
        Err(SignalLogError { path, line, what, help })
    };
    if bytes.len() as u64 > SIGNAL_LOG_BYTES_MAX {
        return fail(None, "it is larger than a recording can be", "name a .signals file");
    }
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().and_then(complete_line).and_then(|line| line.strip_prefix(MAGIC));
    let Some(header) = first.and_then(|json| serde_json::from_str(json).ok()) else {
        let help = "name a .signals file of this version of rollbackd";
        return fail(Some(1), "it does not begin like a recording", help);
    };
    let (mut valid_lines, mut count, mut full) = (String::new(), 0_u64, false);
    let begins = whole - lines.clone().map(<[u8]>::len).sum::<usize>();
    let mut lines = lines.enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let (last, text) = (lines.peek().is_none(), complete_line(line));
        let signals = match text.map(|text| (text, codec::decode_line(text))) {
            Some((END_MARKER, _)) if last => {
                full = true;
                break;
            }
            Some((_, Some(Line::Single(..)))) => 1,
            Some((_, Some(Line::IdleRun(idle)))) => idle.len(),
            // Blocks of one write can reach the disk out of order.
            _ if last => break,
            _ => {
                let help = "move the file away; the timeline beside it is whole without it";
                return fail(Some(index + 2), "this line makes no sense", help);
            }
        };
        count = count.saturating_add(signals);
        if count > SIGNALS_MAX {
            let help = "move the file away; rollbackd did not write it";
            return fail(Some(index + 2), "it stands for more than 4000000 signals", help);
        }
        valid_lines.push_str(text.unwrap_or_default());
        valid_lines.push('\n');
    }
    let end = if full { END_MARKER.len() + 1 } else { 0 };
    let valid_bytes = (begins + valid_lines.len() + end) as u64;
    let torn = (bytes.len() as u64).saturating_sub(valid_bytes);
    Ok(SignalLog {
        header,
        size_limit_reached: full,
        truncated_bytes: torn,
        valid_bytes,
        lines: valid_lines,
    })
}

fn complete_line(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()?.strip_suffix('\n')
}

impl SignalLog {
    /// The signals, and when each came, exactly in the order in which the judge heard them.
    pub fn signals(&self) -> impl Iterator<Item = (Moment, Signal)> + '_ {
        let mut now = self.header.opened.0;
        let lines = self.lines.lines().filter_map(codec::decode_line);
        let each = lines.flat_map(|line| -> Box<dyn Iterator<Item = (u64, Signal)>> {
            match line {
                Line::Single(step, signal) => Box::new(std::iter::once((step, signal))),
                Line::IdleRun(idle) => Box::new(idle.into_blocks()),
            }
        });
        each.map(move |(step, signal)| {
            now = now.saturating_add(step);
            (Moment(now), signal)
        })
    }

    /// When the newest signal came.
    pub fn last_moment(&self) -> Moment {
        self.signals().last().map_or(self.header.opened, |(moment, _)| moment)
    }
}

impl fmt::Display for SignalLogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}; {}", self.what, self.help)
    }
}

impl std::error::Error for SignalLogError {}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Counts, Observation, ProbeResult, ReleaseNumber, ScrapeResult};
    use crate::record::signal_log::writer::{SignalLogWriter, list_signal_logs};

    const DEPLOY: ReleaseNumber = ReleaseNumber(7);

    fn opening() -> SignalLogHeader {
        let history = crate::model::History { worst_five_minutes: (10, 1), ..Default::default() };
        SignalLogHeader {
            release: ReleaseNumber(7),
            warm: Some(ReleaseNumber(6)),
            opened: Moment(1_000),
            history,
        }
    }

    fn record(dir: &Path, signals: &[(Moment, Signal)]) {
        let (mut recording, _) = SignalLogWriter::open(dir, DEPLOY, &opening()).unwrap();
        signals.iter().for_each(|(now, signal)| recording.append(*now, signal));
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("000007.signals")
    }

    fn block(release: u32, ok: u64) -> Signal {
        let counts = Counts { ok, with_latency: ok, ..Counts::default() };
        Signal { release: ReleaseNumber(release), observation: Observation::Block(250, counts) }
    }

    /// Blocks of two releases, four times a second, and a probe of each once a second.
    fn idle(seconds: u64) -> Vec<(Moment, Signal)> {
        let mut signals = Vec::new();
        for tick in 0..seconds * 4 {
            let now = Moment(1_250 + tick * 250 + tick % 7 / 6);
            signals.extend([(now, block(7, 0)), (now, block(6, 0))]);
            for (release, after) in [(7, 3), (6, 5)].iter().filter(|_| tick % 4 == 3) {
                let seen = Observation::Probe(ProbeResult::Ok);
                let signal = Signal { release: ReleaseNumber(*release), observation: seen };
                signals.push((now + Duration::from_millis(*after), signal));
            }
        }
        signals
    }

    #[test]
    fn an_idle_bake_costs_almost_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let signals = idle(1_800);
        record(dir.path(), &signals);
        assert!(read_signal_log(&file(dir.path())).unwrap().signals().eq(signals.iter().cloned()));
        let bytes = fs::metadata(file(dir.path())).unwrap().len();
        assert!(bytes < 100_000, "{bytes} bytes for half an hour");
    }

    #[test]
    fn a_recording_torn_at_any_byte_is_read_up_to_there_and_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let signals = idle(3);
        record(dir.path(), &signals);
        let bytes = fs::read(file(dir.path())).unwrap();
        let header = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in header..bytes.len() {
            fs::write(file(dir.path()), &bytes[..end]).unwrap();
            let (mut recording, left) =
                SignalLogWriter::open(dir.path(), DEPLOY, &opening()).unwrap();
            let left: Vec<_> = left.unwrap().signals().collect();
            assert!(signals.starts_with(&left), "{end} bytes");
            let later = (Moment(60_000), block(7, 1));
            recording.append(later.0, &later.1);
            drop(recording);
            let both: Vec<_> = read_signal_log(&file(dir.path())).unwrap().signals().collect();
            assert_eq!(both.split_last().unwrap(), (&later, left.as_slice()), "{end} bytes");
        }
    }

    #[test]
    fn a_recording_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut recording, _) = SignalLogWriter::open(dir.path(), DEPLOY, &opening()).unwrap();
        let seen = Observation::Exited("x".repeat(60_000));
        let signal = Signal { release: ReleaseNumber(7), observation: seen };
        for at in 0..400 {
            recording.append(Moment(1_000 + at), &signal);
        }
        drop(recording);
        let recorded = read_signal_log(&file(dir.path())).unwrap();
        assert!(recorded.size_limit_reached && recorded.truncated_bytes == 0);
        assert_eq!(recorded.signals().count(), 279);
        assert!(fs::metadata(file(dir.path())).unwrap().len() <= SIGNAL_LOG_BYTES_MAX);
        let (mut recording, left) = SignalLogWriter::open(dir.path(), DEPLOY, &opening()).unwrap();
        recording.append(Moment(9_000), &signal);
        drop(recording);
        assert_eq!(read_signal_log(&file(dir.path())).unwrap(), left.unwrap(), "full stays full");
    }

    #[test]
    fn the_newest_twenty_are_kept_and_another_trial_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        for deploy in 1..=25 {
            SignalLogWriter::open(dir.path(), ReleaseNumber(deploy), &opening()).unwrap();
        }
        let kept: Vec<_> =
            list_signal_logs(dir.path()).unwrap().iter().map(|(it, _)| it.0).collect();
        assert_eq!(kept, (6..=25).collect::<Vec<_>>());
        let other = SignalLogHeader { warm: None, ..opening() };
        assert!(SignalLogWriter::open(dir.path(), ReleaseNumber(25), &other).unwrap().1.is_none());
        assert_eq!(read_signal_log(&dir.path().join("000025.signals")).unwrap().header, other);
    }

    #[test]
    fn damage_before_the_end_has_a_place() {
        let head = "rollbackd-signals 1 {\"release\":7,\"warm\":6,\"opened\":1000,\"history\":\
                    {\"hour\":{\"ok\":0,\"server_fault\":0,\"tool_fault\":0,\"client_fault\":0,\
                    \"neutral\":0,\"slow\":0,\"timed\":0},\"worst\":[0,0],\"calls\":[]}}\n";
        for (text, told) in [
            ("", "line 1: it does not begin like a recording"),
            ("rollbackd-signals 2 {}\n", "line 1: it does not begin like a recording"),
            (&format!("{head}1 7 q\n1 7 p\n"), "line 2: this line makes no sense"),
            (&format!("{head}full\n1 7 p\n"), "line 2: this line makes no sense"),
            (&format!("{head}e 1 7 1*345600\n{}1 7 p\n", "e 1 7 1*345600\n".repeat(12)), "line 13"),
        ] {
            let error =
                parse_signal_log(Path::new("x.signals"), text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("x.signals, ") && error.contains(told), "{error}");
        }
    }

    fn any_signal() -> impl Strategy<Value = Signal> {
        let count = || prop_oneof![Just(0), 0..100_u64, any::<u64>()];
        let counts = prop::collection::vec(count(), 11).prop_map(|it| Counts {
            ok: it[0],
            server_fault: it[1],
            tool_fault: it[2],
            client_fault: it[3],
            neutral: it[4],
            slow: it[5],
            with_latency: it[6],
            repeatable: it[7],
            repeatable_failed: it[8],
            streams_ended: it[9],
            streams_broken: it[10],
        });
        let text = "[\\PC\n\"\\\\]{0,12}";
        let call =
            (text, text, counts.clone()).prop_map(|(a, b, counts)| ((a.into(), b.into()), counts));
        // NaN is not equal to itself; the other odd ones are.
        let number = || {
            prop_oneof![Just(f64::INFINITY), Just(-0.0), any::<f64>()]
                .prop_filter("a number", |it| !it.is_nan())
        };
        let sample = (number(), number(), prop::option::of(number()))
            .prop_map(|(total, bad, started)| ScrapeResult::Sample { total, bad, started });
        let scrape = prop_oneof![
            sample,
            text.prop_map(ScrapeResult::Down),
            Just(ScrapeResult::NotANumber),
            Just(ScrapeResult::Missing),
            any::<u64>().prop_map(ScrapeResult::Stale),
        ];
        let reply = prop_oneof![
            Just(ProbeResult::Ok),
            Just(ProbeResult::TimedOut),
            Just(ProbeResult::Refused),
            text.prop_map(ProbeResult::Unexpected),
        ];
        let seen = prop_oneof![
            8 => Just(Observation::Block(250, Counts::default())),
            1 => (any::<u32>(), counts).prop_map(|(span, counts)| Observation::Block(span, counts)),
            1 => prop::collection::vec(call, 0..3).prop_map(Observation::Calls),
            1 => (any::<u64>(), any::<u64>()).prop_map(|(n, bad)| Observation::Shadow(n, bad)),
            1 => scrape.prop_map(Observation::Scraped),
            1 => reply.prop_map(Observation::Probe),
            1 => text.prop_map(Observation::Exited),
        ];
        (6_u32..8, seen).prop_map(|(release, seen)| Signal {
            release: ReleaseNumber(release),
            observation: seen,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_noted_is_read_back(
            signals in prop::collection::vec((prop_oneof![Just(0), Just(250), 0..3_000_u64], any_signal()), 0..60)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut now = Moment(1_000);
            let signals: Vec<_> = signals
                .into_iter()
                .map(|(step, signal)| {
                    now = now + Duration::from_millis(step);
                    (now, signal)
                })
                .collect();
            record(dir.path(), &signals);
            let recorded = read_signal_log(&file(dir.path())).unwrap();
            prop_assert_eq!(&recorded.header, &opening());
            prop_assert_eq!((recorded.size_limit_reached, recorded.truncated_bytes), (false, 0));
            prop_assert_eq!(recorded.signals().collect::<Vec<_>>(), signals);
        }

        #[test]
        fn any_bytes_are_answered(text in "(e |[0-9]{1,3} |[bcphsx] |[,*od\"\n])*") {
            let head = format!("{MAGIC}{}\n", serde_json::to_string(&opening()).unwrap());
            if let Ok(recorded) = parse_signal_log(Path::new("x"), format!("{head}{text}").as_bytes()) {
                let _last = recorded.last_moment();
            }
        }
    }
}
