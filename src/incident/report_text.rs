//! The report as text with small bars.

use std::fmt::{self, Write as _};

use crate::incident::report::{FalseAlarms, Report, Times, Week};
use crate::incident::utc::format_ms;

/// Columns of the longest bar.
const BAR_WIDTH: u64 = 30;

/// The numbers of a report: a name and a sentence each.
pub(super) fn numbers(it: &Report) -> Vec<(&'static str, String)> {
    let mut rate = it.failure_rate().map_or("no deploys".to_owned(), |rate| {
        format!("{} ({} of {} deploys)", percent(rate), it.failed_deploys, it.deploys)
    });
    if it.never_ready > 0 {
        rate.push_str(&format!("; {} never became ready", it.never_ready));
    }
    if let Some(day) = &it.deploys_from {
        rate.push_str(&format!("; timelines before {day} are removed"));
    }
    let times = |times: Option<Times>| {
        times.map_or("none".to_owned(), |it| {
            let (median, max) = (format_ms(it.median_ms), format_ms(it.max_ms));
            format!("median {median}, at most {max}")
        })
    };
    let saved = match it.saved_requests {
        0 => "0".to_owned(),
        saved => {
            format!("{saved}, if the releases had continued to fail until the end of their bakes")
        }
    };
    let verdicts: Vec<_> =
        it.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
    vec![
        ("change failure rate", rate),
        ("time to detect", times(it.detect)),
        ("time to restore", times(it.restore)),
        ("failed requests", it.failed_requests.to_string()),
        ("requests saved", saved),
        ("rollbacks", format!("{}, not reviewed: {}", it.rollbacks, it.unreviewed_rollbacks)),
        ("false alarms", false_alarms(&it.false_alarms)),
        (
            "verdicts of reviews",
            if verdicts.is_empty() { "none".to_owned() } else { verdicts.join(", ") },
        ),
        ("incidents", format!("{}, open reviews: {}", it.incidents, it.open_reviews)),
        ("action items", format!("{}, open: {}", it.actions, it.open_actions)),
    ]
}

fn false_alarms(it: &FalseAlarms) -> String {
    if it.deploys == 0 {
        return "no deploy of a good release".to_owned();
    }
    let allowed = format!("max_false_rollback ({})", percent(it.allowed));
    let compared = match () {
        () if it.allowed < it.low => format!("more than {allowed} allows"),
        () if it.high <= it.allowed => format!("less than {allowed} allows"),
        () => format!("{allowed} is within"),
    };
    let (low, high) = (percent(it.low), percent(it.high));
    format!(
        "{} of {} good releases; 95 % interval {low} to {high}; {compared}",
        it.count, it.deploys
    )
}

/// A share with about two digits that mean something.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        it if it == 0.0 || it >= 99.95 => format!("{it:.0} %"),
        it if it < 0.1 => format!("{it:.3} %"),
        it => format!("{it:.1} %"),
    }
}

/// The report for a terminal.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut out, report);
    out
}

fn write_text(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "{}, {} to {}\n", report.services.join(", "), report.from, report.to)?;
    for (name, value) in numbers(report) {
        writeln!(out, "  {name:<20}  {value}")?;
    }
    if !report.weeks.is_empty() {
        writeln!(out, "\n  week of     deploys, failed ones as #")?;
    }
    let most = report.weeks.iter().map(|it| it.deploys).max().unwrap_or(1).max(1);
    for Week { monday, deploys, failed } in &report.weeks {
        let columns = |count: u64| usize::try_from(count * BAR_WIDTH / most).unwrap_or(0);
        // A failed deploy is visible, however many there are.
        let failed_columns = columns(*failed).max(usize::from(*failed > 0));
        let good_columns = columns(*deploys).saturating_sub(failed_columns);
        let good_columns = good_columns.max(usize::from(failed < deploys));
        let bar = "#".repeat(failed_columns) + &"-".repeat(good_columns);
        let space = if bar.is_empty() { "" } else { " " };
        writeln!(out, "  {monday}  {bar}{space}{deploys}, {failed} failed")?;
    }
    if !report.signatures.is_empty() {
        writeln!(out, "\n  incidents by signature")?;
    }
    for it in &report.signatures {
        let (count, signature) = (it.incidents, &it.signature);
        writeln!(out, "  {count:>4}  {}: {signature} (newest: {})", it.service, it.newest)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn it_has_the_numbers_and_a_bar_for_each_week() {
        let text = render(&example::report());
        for line in [
            "weather, 2026-08-29 to 2026-11-27\n",
            "  change failure rate   7.5 % (3 of 40 deploys)\n",
            "  2026-11-09  ##---------------------------- 40, 3 failed\n",
            "  2026-11-16  0, 0 failed\n",
            "  2026-11-23  # 1, 1 failed\n",
            "     2  weather: server fault of <script> (newest: 41)\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        let empty = render(&Report::default());
        assert!(empty.contains("no deploys") && !empty.contains("week of"), "{empty}");
    }

    #[test]
    fn the_interval_of_false_alarms_is_compared_with_what_is_allowed() {
        let text = |count, deploys, low, high, allowed| {
            false_alarms(&FalseAlarms { count, deploys, low, high, allowed })
        };
        assert_eq!(text(0, 0, 0.0, 1.0, 0.001), "no deploy of a good release");
        assert_eq!(
            text(1, 97, 0.000_261, 0.0561, 0.001),
            "1 of 97 good releases; 95 % interval 0.026 % to 5.6 %; max_false_rollback (0.1 %) is within"
        );
        assert!(
            text(9, 97, 0.04, 0.17, 0.001).ends_with("more than max_false_rollback (0.1 %) allows")
        );
        assert!(text(0, 9_999, 0.0, 0.0004, 0.01).contains("0 % to 0.040 %; less than"));
    }
}
