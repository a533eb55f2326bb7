/// A count as a float. Counts stay far below 2^53, so the conversion is exact.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(in crate::judge) fn to_f64(count: u64) -> f64 {
    count as f64
}

/// An e-value for a reason text. Beyond a million only its size matters.
pub(in crate::judge) fn format_evidence(e_value: f64) -> String {
    match e_value {
        e if e < 10.0 => format!("{e:.1}"),
        e if e < 1e6 => format!("{e:.0}"),
        _ => "over 1000000".to_owned(),
    }
}
