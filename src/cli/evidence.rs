//! The evidence of a judge as a bar and a chance.

use crate::model::Evidence;

/// Columns of the bar.
const BAR_WIDTH: usize = 20;

/// One line of a status.
pub(super) fn evidence_line(evidence: &Evidence) -> String {
    let progress = evidence.progress();
    let filled = ((progress * BAR_WIDTH as f64).round() as usize).min(BAR_WIDTH);
    let bar = "#".repeat(filled) + &"-".repeat(BAR_WIDTH - filled);
    let Evidence { objective, e_value, threshold, judged, bad } = evidence;
    if *judged == 0 {
        return format!("  evidence: [{bar}] none, no requests were judged");
    }
    let chance = match one_in(*e_value) {
        Some(chance) => format!("{chance} by chance"),
        None => "none against it".to_owned(),
    };
    let limit = one_in(*threshold).map(|limit| format!(", verdict at {limit}")).unwrap_or_default();
    format!(
        "  evidence: [{bar}] {:.0} %, {chance}{limit}; {objective}: {bad} of {judged} requests bad",
        100.0 * progress
    )
}

/// How rarely evidence this strong comes by chance: an e-value of E at most once in E (Ville).
pub(super) fn one_in(e_value: f64) -> Option<String> {
    Some(match e_value {
        e if e < 2.0 => return None,
        e if e < 9_999.5 => format!("1 in {e:.0}"),
        e if e < 999_500.0 => format!("1 in {:.0} thousand", e / 1e3),
        e if e < 999.5e6 => format!("1 in {:.0} million", e / 1e6),
        e if e < 999.5e9 => format!("1 in {:.0} billion", e / 1e9),
        _ => "less than 1 in a trillion".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_a_bar_and_a_chance() {
        let line = |e_value| {
            let evidence = Evidence {
                objective: "availability".to_owned(),
                e_value,
                threshold: 2_500.0,
                judged: 544,
                bad: 12,
            };
            evidence_line(&evidence)
        };
        assert_eq!(
            line(50.0),
            "  evidence: [##########----------] 50 %, 1 in 50 by chance, verdict at 1 in 2500; \
             availability: 12 of 544 requests bad"
        );
        assert!(line(12e6).contains("[####################] 100 %, 1 in 12 million by chance"));
        assert!(line(0.3).contains("[--------------------] 0 %, none against it"));
        assert!(line(f64::INFINITY).contains("less than 1 in a trillion"));
    }
}
