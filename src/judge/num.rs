/// A count as a float. Counts stay far below 2^53, so the conversion is exact.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(in crate::judge) fn to_f64(count: u64) -> f64 {
    count as f64
}
