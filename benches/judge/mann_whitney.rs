//! The rank test of Kayenta's judge (`MannWhitney.scala`, a69573be): Mann-Whitney with the
//! Hodges-Lehmann shift, by the normal approximation with correction for ties and continuity, as
//! R's `wilcox.test(exact = FALSE, conf.int = TRUE)` does it.

/// How far one sample lies above another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// Pairs in which the first is larger; ties count half.
    pub u: f64,
    /// Two-sided.
    pub p: f64,
    /// The Hodges-Lehmann estimate.
    pub estimate: f64,
    /// Its confidence interval.
    pub lower: f64,
    pub upper: f64,
}

/// Compares two samples. None if one is empty or all values are equal.
pub fn compare(x: &[f64], y: &[f64], confidence: f64) -> Option<Shift> {
    let z = z(x, y, 0.0, 0.5)?;
    let limit = normal_quantile((1.0 + confidence) / 2.0);
    Some(Shift {
        u: pairs(x, y, 0.0),
        p: libm::erfc(z.abs() / std::f64::consts::SQRT_2).min(1.0),
        estimate: root(x, y, 0.0, 0.0),
        lower: root(x, y, limit, 0.5),
        upper: root(x, y, -limit, 0.5),
    })
}

/// Whether the whole confidence interval lies above `tolerance` times the estimate.
///
/// An interval that cannot lie above zero is dismissed before any root is sought.
pub fn is_higher(x: &[f64], y: &[f64], confidence: f64, tolerance: f64) -> bool {
    let limit = normal_quantile((1.0 + confidence) / 2.0);
    let Some(z) = z(x, y, 0.0, 0.5) else { return false };
    let possible = limit < z || least_difference(x, y) > 0.0;
    possible && tolerance * root(x, y, 0.0, 0.0).abs() < root(x, y, limit, 0.5)
}

/// The standardized statistic after `x` was moved down by `shift`. None without any spread.
fn z(x: &[f64], y: &[f64], shift: f64, correction: f64) -> Option<f64> {
    let (nx, ny) = (x.len() as f64, y.len() as f64);
    let n = nx + ny;
    let off = pairs(x, y, shift) - nx * ny / 2.0;
    let variance = nx * ny / 12.0 * (n + 1.0 - ties(x, y, shift) / (n * (n - 1.0)));
    let sign = if off == 0.0 { 0.0 } else { off.signum() };
    (variance > 1e-12).then(|| (off - sign * correction) / variance.sqrt())
}

fn pairs(x: &[f64], y: &[f64], shift: f64) -> f64 {
    let one = |a: f64, b: f64| match a.total_cmp(&b) {
        _ if a == b => 0.5,
        std::cmp::Ordering::Greater => 1.0,
        _ => 0.0,
    };
    x.iter().map(|x| y.iter().map(|y| one(x - shift, *y)).sum::<f64>()).sum()
}

/// The sum of t^3 - t over groups of t equal values.
fn ties(x: &[f64], y: &[f64], shift: f64) -> f64 {
    let mut all: Vec<f64> = x.iter().map(|x| x - shift).chain(y.iter().copied()).collect();
    all.sort_unstable_by(f64::total_cmp);
    let group = |same: &[f64]| {
        let t = same.len() as f64;
        t * t * t - t
    };
    all.chunk_by(|a, b| a == b).map(group).sum()
}

/// The shift at which the statistic falls through `limit`: bisection between the largest and the
/// smallest difference. With too few values to reach it, the interval ends at those.
fn root(x: &[f64], y: &[f64], limit: f64, correction: f64) -> f64 {
    let (mut low, mut high) = (least_difference(x, y), -least_difference(y, x));
    let above = |shift: f64| z(x, y, shift, correction).map_or(0.0, |z| z - limit);
    if above(low) <= 0.0 {
        return low;
    }
    if 0.0 <= above(high) {
        return high;
    }
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if above(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// How far the smallest of `x` lies above the largest of `y`.
fn least_difference(x: &[f64], y: &[f64]) -> f64 {
    let least = x.iter().copied().fold(f64::INFINITY, f64::min);
    let most = y.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    least - most
}

fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..60 {
        let middle: f64 = (low + high) / 2.0;
        if libm::erfc(-middle / std::f64::consts::SQRT_2) / 2.0 < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}
