//! Checks the benchmark's Mann-Whitney test against scipy. An error in it would favour our judge.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(unreachable_pub, reason = "the bench uses it too")]
#[path = "../benches/judge/mann_whitney.rs"]
mod mann_whitney;

use mann_whitney::{compare, is_higher};
use serde::Deserialize;

#[derive(Deserialize)]
struct Data {
    confidence: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    x: Vec<f64>,
    y: Vec<f64>,
    /// Null if all values are equal.
    shift: Option<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    u: f64,
    p: f64,
    /// The median of all differences: one value, or an interval.
    middle: [f64; 2],
    lower: f64,
    upper: f64,
}

fn reference_data() -> Data {
    serde_json::from_str(include_str!("data/mann_whitney.json")).unwrap()
}

#[test]
fn agrees_with_scipy() {
    let data = reference_data();
    for Case { name, x, y, shift } in data.cases {
        let got = compare(&x, &y, data.confidence);
        let Some(want) = shift else {
            assert_eq!(got, None, "{name}");
            continue;
        };
        let got = got.unwrap_or_else(|| panic!("{name}: nothing"));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
        assert!(close(got.u, want.u), "{name}: u {} and {}", got.u, want.u);
        assert!(close(got.p, want.p), "{name}: p {} and {}", got.p, want.p);
        assert!(close(got.lower, want.lower), "{name}: {} and {}", got.lower, want.lower);
        assert!(close(got.upper, want.upper), "{name}: {} and {}", got.upper, want.upper);
        let [low, high] = want.middle;
        let within = low - 1e-9 <= got.estimate && got.estimate <= high + 1e-9;
        assert!(within, "{name}: {} is not in {low}..{high}", got.estimate);
    }
}

#[test]
fn empty_samples_give_no_result() {
    assert_eq!(compare(&[], &[1.0], 0.98), None);
    assert_eq!(compare(&[], &[], 0.98), None);
    assert!(!is_higher(&[], &[], 0.98, 0.25));
}

#[test]
fn higher_requires_the_whole_interval() {
    let data = reference_data();
    let verdict = |name: &str| {
        let case = data.cases.iter().find(|case| case.name.starts_with(name)).unwrap();
        is_higher(&case.x, &case.y, data.confidence, 0.25)
    };
    assert!(verdict("five each, far apart"));
    assert!(!verdict("five each, side by side"));
    assert!(!verdict("all zero"));
    assert!(!verdict("below"));
    // Known weaknesses of Kayenta, reproduced: spinnaker/kayenta issue 780; one value is enough.
    assert!(!verdict("seven of ten"));
    assert!(is_higher(&[0.003], &[0.001], 0.98, 0.25));
}

#[test]
fn quick_verdict_agrees_with_the_interval() {
    let data = reference_data();
    for Case { name, x, y, .. } in data.cases {
        let shift = compare(&x, &y, data.confidence);
        let want = shift.is_some_and(|it| 0.25 * it.estimate.abs() < it.lower);
        assert_eq!(is_higher(&x, &y, data.confidence, 0.25), want, "{name}");
    }
}
