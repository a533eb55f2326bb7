//! The error rate in a mail: of block characters in the text, of table cells in the HTML.
//!
//! Mail clients show neither. Gmail and Outlook take `<svg>` out, do not load `data:` images, and block or
//! warn of HTML files that are attached; an attached image needs a click. Characters, and cells with a
//! height and a colour as attributes, need nothing of all that.

use crate::incident::ErrorRateChart;
use crate::incident::text::escape_html as escape;
use crate::incident::utc::format_ms;

/// From the lowest to the highest.
const BLOCKS: [char; 8] = [
    '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}',
];
/// In place of a column without requests.
const NO_REQUESTS: char = '\u{b7}';
/// Pixels of the highest column.
const HEIGHT: u32 = 60;

/// For a mail as text: two lines of one character a column, and the milestones.
pub(super) fn text(chart: &ErrorRateChart) -> String {
    let line = |columns: &[Option<u8>]| -> String {
        let block = |percent: u8| {
            let step = usize::from(percent) * (BLOCKS.len() - 1);
            let at = step.div_ceil(usize::from(chart.peak().max(1)));
            BLOCKS.get(at).copied().unwrap_or(NO_REQUESTS)
        };
        columns.iter().map(|it| it.map_or(NO_REQUESTS, block)).collect()
    };
    format!(
        "{}:\nnew      {}\nprevious {}\n{}",
        heading(chart),
        line(&chart.new),
        line(&chart.previous),
        marks(chart)
    )
}

/// For a mail as HTML: two tables, a cell a column.
pub(super) fn html(chart: &ErrorRateChart) -> String {
    let table = |name: &str, columns: &[Option<u8>], color: &str| -> String {
        let cells: String = columns.iter().map(|it| cell(chart, *it, color)).collect();
        format!(
            "<p>{name}</p><table cellpadding=\"0\" cellspacing=\"1\" border=\"0\"><tr>{cells}</tr></table>"
        )
    };
    format!(
        "<p><b>{}</b></p>{}{}<p>{}</p>",
        escape(&heading(chart)),
        table("New release:", &chart.new, "#c62828"),
        table("Previous release:", &chart.previous, "#1a7f37"),
        escape(marks(chart).trim_end())
    )
}

/// A column, as a table in a cell: a cell alone would be as high as its row.
fn cell(chart: &ErrorRateChart, percent: Option<u8>, color: &str) -> String {
    let height = HEIGHT * u32::from(percent.unwrap_or(0)) / u32::from(chart.peak().max(1));
    // What failed is seen, and so is that nothing did.
    let height = height.max(if percent.is_some_and(|it| it > 0) { 3 } else { 1 });
    let color = if percent.is_some() { color } else { "#b0b8c0" };
    let title = percent.map_or("no requests".to_owned(), |it| format!("{it} %"));
    format!(
        "<td valign=\"bottom\" height=\"{HEIGHT}\" title=\"{title}\"><table cellpadding=\"0\" \
         cellspacing=\"0\" border=\"0\"><tr><td width=\"9\" height=\"{height}\" bgcolor=\"{color}\" \
         style=\"font-size:1px;line-height:1px\">&nbsp;</td></tr></table></td>"
    )
}

fn heading(chart: &ErrorRateChart) -> String {
    let columns = u64::try_from(chart.new.len()).unwrap_or(u64::MAX);
    let all = format_ms(chart.column_ms.saturating_mul(columns));
    format!("Failed requests over {all} of the bake, peak {} %", chart.peak())
}

fn marks(chart: &ErrorRateChart) -> String {
    if chart.marks.is_empty() {
        return String::new();
    }
    let marks = chart.marks.iter().map(|(name, at)| format!("{name} at {}", format_ms(*at)));
    format!("{}\n", marks.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> ErrorRateChart {
        ErrorRateChart {
            column_ms: 500,
            new: vec![Some(0), Some(1), Some(60), None],
            previous: vec![Some(0), None, Some(0), Some(0)],
            marks: vec![("detected".into(), 1_200), ("<b>".into(), 1_900)],
        }
    }

    #[test]
    fn the_text_has_a_character_for_each_column() {
        let expected = "Failed requests over 2.0 s of the bake, peak 60 %:\n\
                        new      \u{2581}\u{2582}\u{2588}\u{b7}\n\
                        previous \u{2581}\u{b7}\u{2581}\u{2581}\n\
                        detected at 1.2 s, <b> at 1.9 s\n";
        assert_eq!(text(&chart()), expected);
        text(&ErrorRateChart::default());
    }

    #[test]
    fn the_html_needs_no_image_and_no_style_sheet() {
        let html = html(&chart());
        assert_eq!(html.matches("bgcolor").count(), 8);
        assert!(html.contains("height=\"60\" bgcolor=\"#c62828\""), "{html}");
        assert!(html.contains("height=\"3\" bgcolor=\"#c62828\""), "{html}");
        for absent in ["<svg", "<img", "<style", "<script", "<b> at"] {
            assert!(!html.contains(absent), "{absent}");
        }
    }
}
