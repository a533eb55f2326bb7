//! What was written is read back, whatever was cut off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use crate::model::{
    Arm, BlockSources, Counts, Moment, Observation, ProbeResult, RampStep, ReleaseNumber,
    ScrapeResult, Signal, SourceCounts, TrialCell,
};
use crate::record::signal_log::codec::{MAGIC, SIGNAL_LOG_BYTES_MAX, SignalLogHeader};
use crate::record::signal_log::reader::*;
use crate::record::signal_log::writer::{SignalLogWriter, list_signal_logs};

const DEPLOY: ReleaseNumber = ReleaseNumber(7);

fn header() -> SignalLogHeader {
    let history = crate::model::History { worst_five_minutes: (10, 1), ..Default::default() };
    SignalLogHeader {
        release: ReleaseNumber(7),
        warm: Some(ReleaseNumber(6)),
        opened: Moment(1_000),
        history,
    }
}

fn record(dir: &Path, signals: &[(Moment, Signal)]) {
    let (mut writer, _) = SignalLogWriter::open(dir, DEPLOY, &header()).unwrap();
    signals.iter().for_each(|(now, signal)| writer.append(*now, signal));
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
            let observation = Observation::Probe(ProbeResult::Ok);
            let signal = Signal { release: ReleaseNumber(*release), observation };
            signals.push((now + Duration::from_millis(*after), signal));
        }
    }
    signals
}

#[test]
fn an_idle_bake_takes_little_space() {
    let dir = tempfile::tempdir().unwrap();
    let signals = idle(1_800);
    record(dir.path(), &signals);
    assert!(read_signal_log(&file(dir.path())).unwrap().signals().eq(signals.iter().cloned()));
    let bytes = fs::metadata(file(dir.path())).unwrap().len();
    assert!(bytes < 100_000, "{bytes} bytes for half an hour");
}

#[test]
fn a_log_cut_at_any_byte_is_read_up_to_there_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let signals = idle(3);
    record(dir.path(), &signals);
    let bytes = fs::read(file(dir.path())).unwrap();
    let header_bytes = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in header_bytes..bytes.len() {
        fs::write(file(dir.path()), &bytes[..end]).unwrap();
        let (mut writer, existing) = SignalLogWriter::open(dir.path(), DEPLOY, &header()).unwrap();
        let left: Vec<_> = existing.unwrap().signals().collect();
        assert!(signals.starts_with(&left), "{end} bytes");
        let later = (Moment(60_000), block(7, 1));
        writer.append(later.0, &later.1);
        drop(writer);
        let both: Vec<_> = read_signal_log(&file(dir.path())).unwrap().signals().collect();
        assert_eq!(both.split_last().unwrap(), (&later, left.as_slice()), "{end} bytes");
    }
}

#[test]
fn a_log_stops_at_its_maximum_size() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, _) = SignalLogWriter::open(dir.path(), DEPLOY, &header()).unwrap();
    let observation = Observation::Exited("x".repeat(60_000));
    let signal = Signal { release: ReleaseNumber(7), observation };
    for at in 0..400 {
        writer.append(Moment(1_000 + at), &signal);
    }
    drop(writer);
    let log = read_signal_log(&file(dir.path())).unwrap();
    assert!(log.size_limit_reached && log.truncated_bytes == 0);
    assert_eq!(log.signals().count(), 279);
    assert!(fs::metadata(file(dir.path())).unwrap().len() <= SIGNAL_LOG_BYTES_MAX);
    let (mut writer, existing) = SignalLogWriter::open(dir.path(), DEPLOY, &header()).unwrap();
    writer.append(Moment(9_000), &signal);
    drop(writer);
    assert_eq!(read_signal_log(&file(dir.path())).unwrap(), existing.unwrap(), "full stays full");
}

#[test]
fn the_newest_twenty_are_kept_and_another_trial_starts_a_new_log() {
    let dir = tempfile::tempdir().unwrap();
    for deploy in 1..=25 {
        SignalLogWriter::open(dir.path(), ReleaseNumber(deploy), &header()).unwrap();
    }
    let kept: Vec<_> = list_signal_logs(dir.path()).unwrap().iter().map(|(it, _)| it.0).collect();
    assert_eq!(kept, (6..=25).collect::<Vec<_>>());
    let other = SignalLogHeader { warm: None, ..header() };
    assert!(SignalLogWriter::open(dir.path(), ReleaseNumber(25), &other).unwrap().1.is_none());
    assert_eq!(read_signal_log(&dir.path().join("000025.signals")).unwrap().header, other);
}

#[test]
fn damage_before_the_end_is_an_error_with_its_line() {
    let head = "rollbackd-signals 1 {\"release\":7,\"warm\":6,\"opened\":1000,\"history\":\
                {\"hour\":{\"ok\":0,\"server_fault\":0,\"tool_fault\":0,\"client_fault\":0,\
                \"neutral\":0,\"slow\":0,\"timed\":0},\"worst\":[0,0],\"calls\":[]}}\n";
    for (text, expected) in [
        ("", "line 1: it does not begin like a signal log"),
        ("rollbackd-signals 2 {}\n", "line 1: it does not begin like a signal log"),
        (&format!("{head}1 7 q\n1 7 p\n"), "line 2: this line is invalid"),
        (&format!("{head}full\n1 7 p\n"), "line 2: this line is invalid"),
        (&format!("{head}e 1 7 1*345600\n{}1 7 p\n", "e 1 7 1*345600\n".repeat(12)), "line 13"),
    ] {
        let error =
            parse_signal_log(Path::new("x.signals"), text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("x.signals, ") && error.contains(expected), "{error}");
    }
}

fn any_counts() -> impl Strategy<Value = Counts> + Clone {
    let count = || prop_oneof![Just(0), 0..100_u64, any::<u64>()];
    prop::collection::vec(count(), 15).prop_map(|it| Counts {
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
        small: it[11],
        slower: it[12],
        given_up: it[13],
        answered_late: it[14],
    })
}

fn any_sources() -> impl Strategy<Value = BlockSources> {
    let source = (any::<u64>(), any::<u64>(), any_counts())
        .prop_map(|(source, call, counts)| SourceCounts { source, call, counts });
    (
        any::<[u16; 2]>(),
        any_counts(),
        prop::collection::vec(source.clone(), 0..3),
        prop::collection::vec(source, 0..3),
    )
        .prop_map(|([sources_active, clients_active], known_failing, sources, clients)| {
            BlockSources { sources_active, clients_active, known_failing, sources, clients }
        })
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let counts = any_counts();
    let text = "[\\PC\n\"\\\\]{0,12}";
    let call =
        (text, text, counts.clone()).prop_map(|(a, b, counts)| ((a.into(), b.into()), counts));
    // NaN is not equal to itself; the other odd ones are.
    let number = || {
        prop_oneof![Just(f64::INFINITY), Just(-0.0), any::<f64>()]
            .prop_filter("a number", |it| !it.is_nan())
    };
    let sample = (number(), number(), prop::option::of(number()), any::<bool>()).prop_map(
        |(total, bad, started, bad_missing)| ScrapeResult::Sample {
            total,
            bad,
            started,
            bad_missing,
        },
    );
    let scrape = prop_oneof![
        sample,
        text.prop_map(ScrapeResult::Down),
        Just(ScrapeResult::NotANumber),
        Just(ScrapeResult::Missing),
        any::<u64>().prop_map(ScrapeResult::Stale),
        text.prop_map(ScrapeResult::WrongMetric),
    ];
    let reply = prop_oneof![
        Just(ProbeResult::Ok),
        Just(ProbeResult::TimedOut),
        Just(ProbeResult::Refused),
        text.prop_map(ProbeResult::Unexpected),
    ];
    let observation = prop_oneof![
        8 => Just(Observation::Block(250, Counts::default())),
        1 => (any::<u32>(), counts).prop_map(|(span, counts)| Observation::Block(span, counts)),
        1 => prop::collection::vec(call, 0..3).prop_map(Observation::Calls),
        1 => any_sources().prop_map(Observation::Sources),
        1 => (any::<u64>(), any::<u64>()).prop_map(|(n, bad)| Observation::Shadow(n, bad)),
        1 => prop::collection::vec(cell(), 0..4).prop_map(Observation::Cells),
        1 => prop::collection::vec(any::<(u64, u64)>(), 0..4).prop_map(Observation::KnownFailing),
        1 => any::<[u32; 4]>().prop_map(|it| Observation::Step(ramp_step(it))),
        1 => scrape.prop_map(Observation::Scraped),
        1 => reply.prop_map(Observation::Probe),
        1 => text.prop_map(Observation::Exited),
    ];
    (6_u32..8, observation)
        .prop_map(|(release, observation)| Signal { release: ReleaseNumber(release), observation })
}

fn ramp_step([step, of, share_ppm, below_ppm]: [u32; 4]) -> RampStep {
    RampStep { step, of, share_ppm, below_ppm }
}

fn cell() -> impl Strategy<Value = TrialCell> {
    let numbers = (any::<[u64; 4]>(), any::<[u32; 3]>());
    (any::<bool>(), numbers).prop_map(|(is_trial, ([subject, client, call, second], counts))| {
        let arm = if is_trial { Arm::Trial } else { Arm::Control };
        let [started, failed, excused] = counts;
        TrialCell { arm, subject, client, call, second, started, failed, excused }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn written_signals_are_read_back(
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
        let log = read_signal_log(&file(dir.path())).unwrap();
        prop_assert_eq!(&log.header, &header());
        prop_assert_eq!((log.size_limit_reached, log.truncated_bytes), (false, 0));
        prop_assert_eq!(log.signals().collect::<Vec<_>>(), signals);
    }

    #[test]
    fn any_text_gives_a_log_or_an_error(text in "(e |[0-9]{1,3} |[bcphsx] |[,*od\"\n])*") {
        let head = format!("{MAGIC}{}\n", serde_json::to_string(&header()).unwrap());
        if let Ok(log) = parse_signal_log(Path::new("x"), format!("{head}{text}").as_bytes()) {
            let _last = log.last_moment();
        }
    }
}
