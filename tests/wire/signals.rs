//! The recording of the signals that a judge received, as stored on disk.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rollbackd::model::{
    BlockSources, Counts, History, Moment, Observation, ProbeResult, ReleaseNumber, ScrapeResult,
    Signal, StartCause,
};
use rollbackd::record::{SignalLogHeader, SignalLogWriter, parse_signal_log};

use crate::examples::{cells, counts, sources, step};
use crate::golden::hold;

fn opening() -> SignalLogHeader {
    let calls = vec![(("tools/call".into(), "forecast".into()), counts())];
    let history =
        History { last_hour: counts(), worst_five_minutes: (40, 3), calls, ..History::default() };
    let opened = Moment(1_700_000_000_000);
    SignalLogHeader { release: ReleaseNumber(7), warm: Some(ReleaseNumber(6)), opened, history }
}

/// One example of each signal.
fn signals() -> Vec<Signal> {
    let replies = one_of_each!(ProbeResult;
        ProbeResult::Ok => "" ProbeResult::Ok;
        ProbeResult::TimedOut => "" ProbeResult::TimedOut;
        ProbeResult::Refused => "" ProbeResult::Refused;
        ProbeResult::Unexpected(_) => "" ProbeResult::Unexpected("status 500".to_owned());
    );
    let sample =
        |started| ScrapeResult::Sample { total: 1000.0, bad: 2.5, started, bad_missing: false };
    let scrapes = one_of_each!(ScrapeResult;
        ScrapeResult::Sample { .. } => "" sample(None), "" sample(Some(1_700_000_000.25)),
            "" ScrapeResult::Sample { total: 1000.0, bad: 0.0, started: None, bad_missing: true };
        ScrapeResult::Down(_) => "" ScrapeResult::Down("connection refused".to_owned());
        ScrapeResult::NotANumber => "" ScrapeResult::NotANumber;
        ScrapeResult::Missing => "" ScrapeResult::Missing;
        ScrapeResult::Stale(_) => "" ScrapeResult::Stale(90);
        ScrapeResult::WrongMetric(_) => "" ScrapeResult::WrongMetric("x is a gauge".to_owned());
    );
    let calls = vec![
        (("tools/call".into(), "forecast \"now\"".into()), counts()),
        (("ping".into(), "".into()), Counts::default()),
    ];
    let others = one_of_each!(Observation;
        Observation::Block(..) => "" Observation::Block(250, counts()),
            "" Observation::Block(250, Counts { small: 12, slower: 13, given_up: 14, answered_late: 15, ..counts() });
        Observation::Calls(_) => "" Observation::Calls(calls);
        Observation::Sources(_) => "" Observation::Sources(sources()),
            "" Observation::Sources(BlockSources::default());
        Observation::Shadow(..) => "" Observation::Shadow(40, 3);
        Observation::Cells(_) => "" Observation::Cells(cells()), "" Observation::Cells(Vec::new());
        Observation::KnownFailing(_) => "" Observation::KnownFailing(vec![(7 << 40, 0x1c2d), (0, 1)]);
        Observation::Step(_) => "" Observation::Step(step());
        Observation::Scraped(_) => "" Observation::Scraped(ScrapeResult::Missing);
        Observation::Probe(_) => "" Observation::Probe(ProbeResult::Ok);
        Observation::Exited(_) => "" Observation::Exited("signal 9".to_owned());
        Observation::Starting(..) =>
            "" Observation::Starting(StartCause::External, 12_000),
            "" Observation::Starting(StartCause::Exit, 1_000);
    );
    let others = others.into_iter().map(|(_, seen)| seen);
    let replies = replies.into_iter().map(|(_, reply)| Observation::Probe(reply));
    let scrapes = scrapes.into_iter().map(|(_, scrape)| Observation::Scraped(scrape));
    let of_7 = |seen| Signal { release: ReleaseNumber(7), observation: seen };
    others.chain(replies).chain(scrapes).map(of_7).collect()
}

/// Whether 0.1.0 wrote such signals.
fn is_old(signal: &Signal) -> bool {
    !matches!(
        &signal.observation,
        Observation::Block(_, Counts { small: 1.., .. })
            | Observation::Starting(..)
            | Observation::KnownFailing(_)
            | Observation::Sources(_)
            | Observation::Cells(_)
            | Observation::Step(_)
            | Observation::Scraped(
                ScrapeResult::WrongMetric(_) | ScrapeResult::Sample { bad_missing: true, .. }
            )
    )
}

/// The signals at intervals of 250 ms, followed by an idle period.
fn heard(signals: Vec<Signal>) -> Vec<(Moment, Signal)> {
    let mut now = opening().opened;
    let mut after = |ms| {
        now = now + Duration::from_millis(ms);
        now
    };
    let mut all: Vec<_> = signals.into_iter().map(|signal| (after(250), signal)).collect();
    for round in 0..12 {
        let step = if round == 5 { 251 } else { 250 };
        let block = |release| Signal {
            release: ReleaseNumber(release),
            observation: Observation::Block(250, Counts::default()),
        };
        let at = after(step);
        all.extend([(at, block(7)), (at, block(6))]);
    }
    all
}

#[test]
fn every_kind_of_line_is_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut recording, _) =
        SignalLogWriter::open(dir.path(), ReleaseNumber(7), &opening()).unwrap();
    heard(signals()).iter().for_each(|(at, signal)| recording.append(*at, signal));
    drop(recording);
    let text = fs::read_to_string(dir.path().join("000007.signals")).unwrap();
    hold("signals.txt", &text);
}

#[test]
fn old_lines_are_still_read() {
    let text = include_str!("0.1.0/signals.txt");
    let old: Vec<_> = signals().into_iter().filter(is_old).collect();
    for (text, full) in [(text.to_owned(), false), (format!("{text}full\n"), true)] {
        let recorded = parse_signal_log(Path::new("000007.signals"), text.as_bytes()).unwrap();
        assert_eq!(recorded.header, opening());
        assert_eq!((recorded.size_limit_reached, recorded.truncated_bytes), (full, 0));
        assert_eq!(recorded.signals().collect::<Vec<_>>(), heard(old.clone()));
    }
}

/// 0.1.0 may omit some counts in the first line.
#[test]
fn an_old_first_line_with_fewer_counts_is_still_read() {
    let old = include_str!("0.1.0/signals-first-line-least.txt");
    let recorded = parse_signal_log(Path::new("000007.signals"), old.as_bytes()).unwrap();
    let hour = Counts {
        repeatable: 0,
        repeatable_failed: 0,
        streams_ended: 0,
        streams_broken: 0,
        ..counts()
    };
    let history = History { last_hour: hour, worst_five_minutes: (40, 3), ..History::default() };
    assert_eq!(recorded.header, SignalLogHeader { history, warm: None, ..opening() });
}
