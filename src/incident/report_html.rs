//! The report as one HTML file.

use std::fmt::{self, Write as _};

use crate::incident::html::STYLE;
use crate::incident::report::{Report, Week};
use crate::incident::report_text::numbers;
use crate::incident::text::escape_html as escape;

/// The report as one HTML file without scripts.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let _ = write_html(&mut out, report);
    out
}

fn write_html(out: &mut String, report: &Report) -> fmt::Result {
    let services = report.services.join(", ");
    let title = escape(&format!("Deploys of {services}, {} to {}", report.from, report.to));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>{title}</title>\n<style>{STYLE}</style></head><body><main>\n\
         <h1>{title}</h1>\n<div class=\"scroll\"><table>"
    )?;
    for (name, value) in numbers(report) {
        writeln!(out, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value))?;
    }
    writeln!(out, "</table></div>")?;
    if !report.weeks.is_empty() {
        writeln!(out, "<h2>Deploys by week</h2>")?;
        write_chart(out, report)?;
    }
    if !report.signatures.is_empty() {
        writeln!(
            out,
            "<h2>Incidents by signature</h2>\n<div class=\"scroll\"><table>\n\
             <tr><th>incidents</th><th>newest</th><th>service</th><th>signature</th></tr>"
        )?;
        for it in &report.signatures {
            let (count, newest) = (it.incidents, it.newest);
            let (service, signature) = (escape(&it.service), escape(&it.signature));
            writeln!(
                out,
                "<tr><td class=\"n\">{count}</td><td class=\"n\">{newest}</td><td>{service}</td>\
                 <td>{signature}</td></tr>"
            )?;
        }
        writeln!(out, "</table></div>")?;
    }
    writeln!(out, "</main></body></html>")
}

/// A bar for each week: all deploys, and the failed ones in front.
fn write_chart(out: &mut String, report: &Report) -> fmt::Result {
    const ROW: usize = 18;
    let most = report.weeks.iter().map(|it| it.deploys).max().unwrap_or(1).max(1) as f64;
    let height = report.weeks.len().max(1) * ROW;
    let label = "deploys and failed deploys by week";
    writeln!(out, "<svg viewBox=\"0 0 600 {height}\" role=\"img\" aria-label=\"{label}\">")?;
    for (index, Week { monday, deploys, failed }) in report.weeks.iter().enumerate() {
        let (y, middle) = (index * ROW + 3, index * ROW + 13);
        let width = |count: u64| 420.0 * count as f64 / most;
        // A failed deploy is visible, however many there are.
        let failed_width = if *failed > 0 { width(*failed).max(2.0) } else { 0.0 };
        writeln!(
            out,
            "<text x=\"0\" y=\"{middle}\">{monday}</text>\
             <rect x=\"80\" y=\"{y}\" height=\"12\" width=\"{:.1}\" fill=\"var(--ok)\"/>\
             <rect x=\"80\" y=\"{y}\" height=\"12\" width=\"{failed_width:.1}\" fill=\"var(--bad)\"/>\
             <text x=\"{:.1}\" y=\"{middle}\">{deploys}, {failed} failed</text>",
            width(*deploys),
            86.0 + width(*deploys)
        )?;
    }
    writeln!(out, "</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::example;

    #[test]
    fn it_has_charts_and_no_markup_of_a_release() {
        let html = render(&example::report());
        assert!(html.contains("<svg") && !html.contains("<script>"), "{html}");
        assert!(html.contains("<td>7.5 % (3 of 40 deploys)</td>"), "{html}");
        assert!(!render(&Report::default()).contains("<svg"));
    }
}
