//! Bounds of a failure rate from counts, by the beta distribution.

use crate::judge::num::to_f64;

/// The rate that the true one exceeds with probability `1 - tail`: Jeffreys' posterior
/// Beta(bad + 1/2, good + 1/2). Zero without requests.
pub(super) fn lower_bound(bad: u64, n: u64, tail: f64) -> f64 {
    let bad = bad.min(n);
    if bad == 0 {
        return 0.0;
    }
    quantile(tail, to_f64(bad) + 0.5, to_f64(n - bad) + 0.5)
}

/// The rate that the true one stays below with confidence `1 - tail`: Clopper and Pearson (1934).
/// One without requests.
pub(super) fn upper_bound(bad: u64, n: u64, tail: f64) -> f64 {
    let bad = bad.min(n);
    if bad == n {
        return 1.0;
    }
    quantile(1.0 - tail, to_f64(bad) + 1.0, to_f64(n - bad))
}

/// The 95 % interval of a rate by Clopper and Pearson (1934), from counts. The whole unit interval
/// without counts.
pub fn false_alarm_interval(count: u64, n: u64) -> (f64, f64) {
    const TAIL: f64 = 0.025;
    let count = count.min(n);
    let low = match count {
        0 => 0.0,
        _ => quantile(TAIL, to_f64(count), to_f64(n - count) + 1.0),
    };
    (low, upper_bound(count, n, TAIL))
}

/// Bisection: 60 halvings of the unit interval.
fn quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if cumulative(middle, a, b) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The regularized incomplete beta function I_x(a, b), by its continued fraction
/// (Abramowitz and Stegun 26.5.8, evaluated by Lentz's method).
fn cumulative(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on one side of the mean; the other side is its mirror image.
    if x > (a + 1.0) / (a + b + 2.0) {
        1.0 - incomplete_beta(1.0 - x, b, a)
    } else {
        incomplete_beta(x, a, b)
    }
}

fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    let front =
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln();
    front.exp() * continued_fraction(x, a, b) / a
}

fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const ROUNDS_MAX: u32 = 500;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut result = d;
    for round in 1..=ROUNDS_MAX {
        let m = f64::from(round);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut step = 1.0;
        for term in [even, odd] {
            d = 1.0 / nonzero(1.0 + term * d);
            c = nonzero(1.0 + term / c);
            step = d * c;
            result *= step;
        }
        if (step - 1.0).abs() < 1e-12 {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_tabled_values() {
        // scipy.stats.beta.ppf
        let cases = [
            (lower_bound(10, 10, 0.05), 0.829_227),
            (lower_bound(3, 10, 0.05), 0.117_329),
            (lower_bound(50, 1000, 0.05), 0.039_609),
            (upper_bound(0, 300, 0.05), 0.009_936),
            (upper_bound(2, 1000, 0.05), 0.006_282),
            (upper_bound(10, 10, 0.05), 1.0),
            (lower_bound(0, 10, 0.05), 0.0),
            (lower_bound(0, 0, 0.05), 0.0),
        ];
        for (index, (got, want)) in cases.into_iter().enumerate() {
            assert!((got - want).abs() < 5e-5, "case {index}: {got}, not {want}");
        }
    }
}
