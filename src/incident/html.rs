//! The document as one HTML file: no script, charts as inline SVG, light and dark, for screen and paper.
//!
//! Every text is escaped here; nothing is loaded from elsewhere, which the policy in the head enforces.

use std::fmt::{self, Write as _};

use crate::incident::chart;
use crate::incident::document::{Offer, PostMortem};
use crate::incident::human::PARTS;
use crate::incident::text::escape_html as escape;
use crate::incident::utc::format_ms;

pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#59636e;--line:#d1d9e0;--bad:#c62828;--ok:#1a7f37;--mark:#9a6700}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9198a1;--line:#3d444d;--bad:#ff7b72;--ok:#56d364;--mark:#e3b341}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:56rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}\
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.9rem}\
th,td{text-align:left;vertical-align:top;padding:.25rem .5rem;border-bottom:1px solid var(--line)}\
td.n{text-align:right;white-space:nowrap}.soft{color:var(--soft)}.human{white-space:pre-wrap;border-left:3px solid var(--line);padding-left:.75rem}\
code{font-family:ui-monospace,monospace;font-size:.9em}svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\
@media print{body{max-width:none;padding:0;font-size:11pt}h2{break-after:avoid}tr,svg{break-inside:avoid}}";

/// Renders the document.
pub fn render(doc: &PostMortem) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_document(&mut out, doc);
    out
}

fn write_document(out: &mut String, doc: &PostMortem) -> fmt::Result {
    let title = format!("Post-mortem {} of {}: {}", doc.incident, doc.service, doc.title);
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>{0}</title>\n<style>{STYLE}</style></head><body><main>\n<h1>{0}</h1>",
        escape(&title)
    )?;
    writeln!(out, "<p class=\"soft\">State: {}</p><p>{}</p>", doc.state, escape(&doc.headline))?;
    if let Some(earlier) = doc.recurrence_of.first() {
        writeln!(out, "<p><strong>It happened before: incident {earlier}.</strong></p>")?;
    }
    section(out, doc, "summary", |out| match doc.human.get("summary") {
        "" => writeln!(out, "<p>{}</p>", escape(&doc.summary)),
        _ => Ok(()),
    })?;
    write_impact(out, doc)?;
    writeln!(out, "<h2>Error rate</h2>")?;
    out.push_str(&chart::error_rate(&doc.error_rate));
    write_timeline(out, doc)?;
    write_failures(out, doc)?;
    writeln!(out, "<h2>What changed in this deploy</h2>")?;
    let changes: Vec<_> =
        doc.changes.iter().map(|it| format!("{}: {}", it.kind, it.text)).collect();
    list(out, &changes)?;
    writeln!(out, "<h2>What the release said</h2>")?;
    let output: Vec<_> =
        doc.output.iter().map(|it| format!("{}{} x {}", it.mark(), it.count, it.example)).collect();
    if output.is_empty() {
        writeln!(out, "<p>{}</p>", escape(&doc.without_output()))?;
    }
    list(out, &output)?;
    writeln!(out, "<h2>Evidence</h2><p>{}</p>", escape(&doc.evidence_text))?;
    if let Some(evidence) = &doc.evidence {
        out.push_str(&chart::evidence(evidence));
    }
    section(out, doc, "root_cause", |out| offers(out, &doc.hypotheses))?;
    section(out, doc, "factors", |out| offers(out, &doc.factors))?;
    section(out, doc, "remediation", |out| list(out, &doc.remediation))?;
    section(out, doc, "went_well", |out| list(out, &doc.went_well))?;
    section(out, doc, "went_badly", |out| list(out, &doc.went_badly))?;
    write_actions(out, doc)?;
    writeln!(out, "</main></body></html>")
}

/// What the daemon offers, and what people wrote.
fn section(
    out: &mut String,
    doc: &PostMortem,
    part: &str,
    generated: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    let heading = PARTS.iter().find(|(key, ..)| *key == part).map_or("", |(_, heading, _)| heading);
    writeln!(out, "<h2>{heading}</h2>")?;
    let text = doc.human.get(part);
    if !text.is_empty() {
        writeln!(out, "<div class=\"human\">{}</div>", escape(text))?;
    }
    generated(out)
}

fn offers(out: &mut String, offers: &[Offer]) -> fmt::Result {
    if offers.is_empty() {
        return Ok(());
    }
    writeln!(out, "<p class=\"soft\">Offered by the daemon, by what it saw:</p><ul>")?;
    for it in offers {
        let setting = it.setting.as_deref().map_or(String::new(), |setting| {
            format!(" <span class=\"soft\">Setting: <code>{}</code></span>", escape(setting))
        });
        let (title, observation) = (escape(&it.title), escape(&it.observation));
        writeln!(out, "<li><strong>{title}</strong>: {observation}{setting}</li>")?;
    }
    writeln!(out, "</ul>")
}

fn list(out: &mut String, items: &[String]) -> fmt::Result {
    if items.is_empty() {
        return writeln!(out, "<p class=\"soft\">nothing that the daemon can see</p>");
    }
    writeln!(out, "<ul>")?;
    for item in items {
        writeln!(out, "<li>{}</li>", escape(item))?;
    }
    writeln!(out, "</ul>")
}

fn write_impact(out: &mut String, doc: &PostMortem) -> fmt::Result {
    let it = &doc.impact;
    writeln!(out, "<h2>Impact</h2><div class=\"scroll\"><table>")?;
    let mut rows = vec![
        ("Server faults", it.count(it.server_faults)),
        ("Tool faults", it.count(it.tool_faults)),
        ("Rejected calls", it.count(it.client_faults)),
        (it.requests_label(), it.count(it.requests)),
        ("Sessions moved / ended", format!("{} / {}", it.sessions_moved, it.sessions_ended)),
        ("Requests that the rollback interrupted", it.requests_interrupted.to_string()),
    ];
    rows.extend(it.duration_ms.map(|ms| ("First to last bad answer", format_ms(ms))));
    rows.extend(it.budget_burned.map(|burned| {
        let percent = format!("{:.1} % of what an hour of this traffic allows", 100.0 * burned);
        ("Error budget burned", percent)
    }));
    for (name, value) in rows {
        writeln!(out, "<tr><th>{name}</th><td class=\"n\">{}</td></tr>", escape(&value))?;
    }
    writeln!(out, "</table></div>")?;
    match &it.counterfactual {
        Some(text) => writeln!(out, "<p>{}.</p>", escape(text)),
        None => Ok(()),
    }
}

fn write_timeline(out: &mut String, doc: &PostMortem) -> fmt::Result {
    writeln!(out, "<h2>Timeline</h2><div class=\"scroll\"><table>")?;
    writeln!(out, "<tr><th>UTC</th><th>since deploy</th><th>kind</th><th>what</th></tr>")?;
    for row in &doc.timeline {
        let (open, close) = if row.is_milestone { ("<strong>", "</strong>") } else { ("", "") };
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{:.3} s</td><td>{open}{}{close}</td><td>{}</td></tr>",
            escape(&row.at),
            row.ms as f64 / 1000.0,
            escape(&row.kind),
            escape(&row.text)
        )?;
    }
    writeln!(out, "</table></div>")?;
    if !doc.nearby.is_empty() {
        writeln!(out, "<p class=\"soft\">Other events on this host within half an hour:</p>")?;
        list(out, &doc.nearby)?;
    }
    writeln!(out, "<div class=\"scroll\"><table>")?;
    for part in &doc.durations {
        let (name, time, faster) = (escape(&part.part), format_ms(part.ms), escape(&part.faster));
        let faster = format!("<td class=\"soft\">faster with {faster}</td>");
        writeln!(out, "<tr><td>{name}</td><td class=\"n\">{time}</td>{faster}</tr>")?;
    }
    writeln!(out, "</table></div>")
}

fn write_failures(out: &mut String, doc: &PostMortem) -> fmt::Result {
    writeln!(out, "<h2>What failed</h2>")?;
    if doc.failures.is_empty() {
        let why = doc.failures_unknown.as_deref().unwrap_or("no call is on record");
        return writeln!(out, "<p>{why}</p>");
    }
    writeln!(out, "<div class=\"scroll\"><table>")?;
    writeln!(
        out,
        "<tr><th>call</th><th>server / tool / rejected</th><th>of</th><th>previous</th></tr>"
    )?;
    for it in &doc.failures {
        let control = it.control.map_or("-".to_owned(), |(bad, all)| format!("{bad} of {all}"));
        writeln!(
            out,
            "<tr><td><code>{}</code></td><td>{} / {} / {}</td><td class=\"n\">{}</td><td>{control}</td></tr>",
            escape(&it.call),
            it.server_faults,
            it.tool_faults,
            it.client_faults,
            it.requests
        )?;
    }
    writeln!(out, "</table></div>")?;
    let samples: Vec<_> = doc
        .samples
        .iter()
        .map(|it| {
            let code = it.code.map_or(String::new(), |code| format!("{code} "));
            format!("{}: {code}{}", it.call, it.message)
        })
        .collect();
    if samples.is_empty() {
        return Ok(());
    }
    writeln!(out, "<p class=\"soft\">Error answers, masked:</p>")?;
    list(out, &samples)
}

fn write_actions(out: &mut String, doc: &PostMortem) -> fmt::Result {
    writeln!(out, "<h2>Action items</h2>")?;
    let actions: Vec<_> = doc
        .actions
        .iter()
        .map(|it| {
            let state = if it.done { "done" } else { "open" };
            let (kind, text) = (it.kind.label(), &it.text);
            let (owner, due) = (&it.owner, &it.due);
            format!(
                "{}-{} {state}, {kind}: {text} (owner: {owner}, due: {due})",
                doc.incident, it.item
            )
        })
        .collect();
    list(out, &actions)?;
    if doc.suggested_actions.is_empty() {
        return Ok(());
    }
    writeln!(out, "<p class=\"soft\">Suggested:</p>")?;
    list(out, &doc.suggested_actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{HumanParts, build, example};

    #[test]
    fn hostile_text_adds_no_element() {
        let clean = build(&example::incident(), &example::facts(), HumanParts::default(), &[]);
        let hostile = "</script><script>alert(1)</script><img src=x onerror=y>\" onload='z' &#60;b";
        let mut doc = clean.clone();
        doc.title = hostile.to_owned();
        doc.headline = hostile.to_owned();
        doc.failures[0].call = hostile.to_owned();
        doc.timeline[0].text = hostile.to_owned();
        doc.error_rate.marks[0].0 = hostile.to_owned();
        let (before, after) = (render(&clean), render(&doc));
        assert_eq!(after.matches('<').count(), before.matches('<').count());
        assert!(!after.contains("<script") && !after.contains("<img"));
    }

    #[test]
    fn charts_are_inline() {
        let doc = build(&example::incident(), &example::facts(), HumanParts::default(), &[]);
        let page = render(&doc);
        assert!(page.contains("<svg") && !page.contains("href") && !page.contains("src="));
    }
}
