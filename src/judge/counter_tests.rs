use proptest::prelude::*;

use super::*;

fn sample(total: f64, bad: f64, started: Option<f64>) -> ScrapeResult {
    ScrapeResult::Sample { total, bad, started, bad_missing: false }
}

fn delta(span: u32, total: u64, bad: u64) -> Delta {
    Delta { span_ms: span, total, bad }
}

#[test]
fn gaps_are_one_block_and_nothing_is_known_of_a_fall() {
    let mut counter = Counter::default();
    let mut take = |at, total, bad| counter.add_scrape(Moment(at), &sample(total, bad, None));
    let grew = |span, total, bad| Ok(CounterChange::Increased(delta(span, total, bad)));
    assert_eq!(take(0, 100.0, 5.0), Ok(CounterChange::First), "nothing to compare with");
    assert_eq!(take(5_000, 110.0, 6.0), grew(5_000, 10, 1));
    assert_eq!(take(10_000, f64::NAN, 6.0), Err(UnusableSample::NotANumber));
    assert_eq!(take(15_000, 130.0, f64::INFINITY), Err(UnusableSample::OutOfRange));
    assert_eq!(take(20_000, 140.0, 6.0), grew(15_000, 30, 0), "one block over the gap");
    assert_eq!(
        take(25_000, 3.0, 1.0),
        Ok(CounterChange::Reset),
        "a counter that falls is not a process that ended"
    );
    assert_eq!(take(30_000, 4.0, 4.0), grew(5_000, 1, 1), "torn: more bad than there are");
    assert_eq!(take(35_000, 8.0, 4.0), grew(5_000, 4, 2), "the rest is not forgotten");
    assert_eq!(take(40_000, -1.0, 0.0), Err(UnusableSample::OutOfRange));
}

#[test]
fn each_cause_has_its_own_words() {
    let mut counter = Counter::default();
    let mut words = |scrape| counter.add_scrape(Moment(0), &scrape).unwrap_err().to_string();
    let seen = [
        words(ScrapeResult::Down("connection refused".to_owned())),
        words(ScrapeResult::NotANumber),
        words(sample(-1.0, 0.0, None)),
        words(ScrapeResult::Missing),
        words(ScrapeResult::Stale(400)),
    ];
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "{seen:?}");
}

#[test]
fn a_start_time_tells_a_restart_from_a_reset() {
    let mut counter = Counter::default();
    let mut take =
        |at, total, started| counter.add_scrape(Moment(at), &sample(total, 0.0, Some(started)));
    assert_eq!(take(100_000, 50.0, 40.0), Ok(CounterChange::First));
    let grew = Ok(CounterChange::Increased(delta(5_000, 10, 0)));
    assert_eq!(take(105_000, 60.0, 40.2), grew, "within the precision of a start time");
    let restarted = Ok(CounterChange::Restarted(delta(5_000, 70, 0)));
    assert_eq!(take(110_000, 70.0, 107.0), restarted, "though its counter is higher");
    assert_eq!(take(115_000, 30.0, 107.0), Ok(CounterChange::Reset), "the process lived on");
    assert_eq!(take(120_000, 40.0, 107.0), Ok(CounterChange::Increased(delta(5_000, 10, 0))));
}

#[test]
fn another_process_counts_once_it_stays() {
    let mut counter = Counter::default();
    let mut take =
        |at, total, started| counter.add_scrape(Moment(at), &sample(total, 0.0, Some(started)));
    assert_eq!(take(100_000, 1_000.0, 40.0), Ok(CounterChange::First));
    for at in [105_000, 110_000] {
        assert_eq!(take(at, 20.0, 43.0), Err(UnusableSample::OtherProcess));
    }
    assert_eq!(take(115_000, 22.0, 43.0), Ok(CounterChange::Reset));
    assert_eq!(take(120_000, 25.0, 43.0), Ok(CounterChange::Increased(delta(5_000, 3, 0))));
}

/// Samples of several processes in turns, each with a total, bad ones and a start time.
fn turns(samples: &[(f64, f64, Option<f64>)]) -> Vec<Result<CounterChange, UnusableSample>> {
    let mut counter = Counter::default();
    let samples = samples.iter().zip(1_u64..);
    samples
        .map(|((total, bad, started), turn)| {
            counter.add_scrape(Moment(100_000 + 5_000 * turn), &sample(*total, *bad, *started))
        })
        .collect()
}

#[test]
fn several_processes_are_recognised_at_any_distance_of_their_starts() {
    // From workers that were forked together to one that is years old.
    for distance in [0.01, 0.31, 0.99, 1.0, 1.7, 60.0, 1e8] {
        let (one, two) = (Some(1e9), Some(1e9 + distance));
        for (a, b) in [(one, two), (two, one)] {
            let seen = turns(&[(100.0, 10.0, a), (101.0, 0.0, b), (103.0, 10.0, a)]);
            assert_eq!(seen[2], Err(UnusableSample::SeveralProcesses), "{distance}: {seen:?}");
        }
    }
}

#[test]
fn values_that_go_back_and_forth_are_several_processes() {
    for started in [None, Some(40.0)] {
        let (high, low) = (|it| (it, 0.0, started), (7.0, 0.0, started));
        let seen = turns(&[high(100.0), low, high(105.0), low, high(110.0), high(111.0)]);
        assert_eq!(seen[1], Ok(CounterChange::Reset), "it may be one");
        let several = Err(UnusableSample::SeveralProcesses);
        assert_eq!(seen[3..], [several.clone(), several.clone(), several]);
    }
}

#[test]
fn a_clock_that_is_corrected_makes_no_second_process() {
    let steps = (0..40_u32).map(|step| {
        let wobble = f64::from(step * 7 % 5) * 0.1;
        (f64::from(step) * 10.0, f64::from(step), Some(1e9 + wobble))
    });
    let seen = turns(&steps.collect::<Vec<_>>());
    let grew = |it: &Result<_, _>| matches!(it, Ok(CounterChange::Increased(_)));
    assert!(seen.iter().skip(1).all(grew), "{seen:?}");
}

#[test]
fn counters_that_fall_now_and_then_are_counted_between() {
    let steps = (0..100_u32).map(|step| (f64::from(step % 20), 0.0, None));
    let seen = turns(&steps.collect::<Vec<_>>());
    assert_eq!(seen.iter().filter(|it| **it == Ok(CounterChange::Reset)).count(), 4);
    assert!(seen.iter().all(Result::is_ok), "{seen:?}");
}

#[test]
fn one_process_that_stays_is_counted_again() {
    let back_and_forth = [(100.0, 0.0, None), (7.0, 0.0, None), (105.0, 0.0, None)];
    let alone = (0..30_u32).map(|step| (7.0 + f64::from(step), 0.0, None));
    let seen = turns(&back_and_forth.into_iter().chain(alone).collect::<Vec<_>>());
    assert_eq!(seen[3 + 20], Ok(CounterChange::Reset), "{seen:?}");
    let grew = Ok(CounterChange::Increased(delta(5_000, 1, 0)));
    assert!(seen[24..].iter().all(|it| *it == grew), "{seen:?}");
}

/// What a server goes through between two scrapes.
#[derive(Debug, Clone)]
enum ServerAction {
    Serve(u32, u32),
    /// It is started again and serves a little.
    Restart(u32, u32),
    ResetCounters,
    FailScrape(u8),
}

fn any_server_action() -> impl Strategy<Value = ServerAction> {
    prop_oneof![
        6 => (0_u32..1_000, 0_u32..1_000).prop_map(|(n, bad)| ServerAction::Serve(n, bad.min(n))),
        1 => (0_u32..1_000, 0_u32..1_000).prop_map(|(n, bad)| ServerAction::Restart(n, bad.min(n))),
        1 => Just(ServerAction::ResetCounters),
        1 => (0_u8..4).prop_map(ServerAction::FailScrape),
    ]
}

fn any_scrape() -> impl Strategy<Value = ScrapeResult> {
    let number = prop_oneof![
        any::<f64>(),
        0.0_f64..1e4,
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(1e300),
        Just(EXACT_INTEGER_MAX),
        Just(-0.0),
    ];
    let started = prop::option::of(prop_oneof![any::<f64>(), 0.0_f64..100.0]);
    prop_oneof![
        8 => (number.clone(), number, started)
            .prop_map(|(total, bad, started)| sample(total, bad, started)),
        1 => Just(ScrapeResult::Missing),
        1 => Just(ScrapeResult::Stale(u64::MAX)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_more_is_counted_than_happened(acts in prop::collection::vec(any_server_action(), 1..60), tells in any::<bool>()) {
        let mut counter = Counter::default();
        let (mut total, mut bad, mut started) = (500_u64, 100_u64, 1.0);
        let (mut happened, mut counted) = ((0_u64, 0_u64), (0_u64, 0_u64));
        let mut at = 1_000_000;
        counter.add_scrape(Moment(at), &sample(500.0, 100.0, tells.then_some(started))).unwrap();
        for act in acts {
            at += 5_000;
            let served = match act {
                ServerAction::Serve(n, k) => Some((n, k)),
                ServerAction::Restart(n, k) => {
                    (total, bad, started) = (0, 0, at as f64 / 1_000.0 - 2.5);
                    Some((n, k))
                }
                // Only a start time tells this from a restart; then it is a lower bound, too.
                ServerAction::ResetCounters => {
                    (total, bad) = (0, 0);
                    Some((0, 0))
                }
                ServerAction::FailScrape(_) => None,
            };
            let (n, k) = served.unwrap_or((7, 3));
            (total, bad) = (total + u64::from(n), bad + u64::from(k));
            happened = (happened.0 + u64::from(n), happened.1 + u64::from(k));
            let scrape = match act {
                ServerAction::FailScrape(0) => ScrapeResult::Down("gone".to_owned()),
                ServerAction::FailScrape(1) => ScrapeResult::NotANumber,
                ServerAction::FailScrape(2) => ScrapeResult::Missing,
                ServerAction::FailScrape(_) => ScrapeResult::Stale(301),
                _ => sample(total as f64, bad as f64, tells.then_some(started)),
            };
            if let Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) = counter.add_scrape(Moment(at), &scrape) {
                prop_assert!(delta.bad <= delta.total);
                counted = (counted.0 + delta.total, counted.1 + delta.bad);
            }
            prop_assert!(counted.0 <= happened.0 && counted.1 <= happened.1, "{counted:?} {happened:?}");
        }
    }

    #[test]
    fn garbage_makes_finite_sane_blocks(scrapes in prop::collection::vec((0_u64..u64::MAX, any_scrape()), 1..80)) {
        let mut counter = Counter::default();
        for (at, scrape) in scrapes {
            if let Ok(CounterChange::Increased(delta) | CounterChange::Restarted(delta)) = counter.add_scrape(Moment(at), &scrape) {
                prop_assert!(delta.bad <= delta.total && delta.total <= EXACT_INTEGER_MAX as u64);
            }
        }
    }
}
