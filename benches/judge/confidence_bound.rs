//! How high a rate can be that was seen so seldom.

/// The rate that the true one stays below with confidence 95 %, after `bad` of `n`: Clopper and
/// Pearson (1934), one-sided.
pub fn upper_confidence_bound(bad: u64, n: u64) -> f64 {
    if n <= bad {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if binomial_cdf(bad, n, middle) < 0.05 {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// The chance of at most `bad` among `n`.
fn binomial_cdf(bad: u64, n: u64, p: f64) -> f64 {
    let ln_choose =
        |k: f64, n: f64| libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let n = n as f64;
    let chance = |k: u64| {
        let k = k as f64;
        (ln_choose(k, n) + k * p.ln() + (n - k) * (-p).ln_1p()).exp()
    };
    (0..=bad).map(chance).sum()
}
