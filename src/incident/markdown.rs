//! The document as Markdown (CommonMark with tables). Text of a release cannot become markup.

use std::fmt::Write as _;

use crate::incident::document::{Offer, PostMortem};
use crate::incident::human::{PARTS, write_part};
use crate::incident::utc::format_ms;

/// Rows of the timeline that are printed.
const ROWS_MAX: usize = 200;

/// Renders the document.
pub fn render(doc: &PostMortem) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_document(&mut out, doc);
    out
}

fn write_document(out: &mut String, doc: &PostMortem) -> std::fmt::Result {
    let PostMortem { service, incident, .. } = doc;
    writeln!(out, "# Post-mortem {incident} of {}: {}\n", escape(service), escape(&doc.title))?;
    writeln!(out, "State: {}. {}\n", doc.state, escape(&doc.headline))?;
    if let Some(earlier) = doc.recurrence_of.first() {
        writeln!(out, "**It happened before: incident {earlier} has the same signature.**\n")?;
    }
    section(out, doc, "summary", &[escape(&doc.summary)])?;
    writeln!(out, "## Impact\n")?;
    write_impact(out, doc)?;
    write_timeline(out, doc)?;
    write_failures(out, doc)?;
    writeln!(out, "## What changed in this deploy\n")?;
    let changes = doc.changes.iter().map(|it| format!("{}: {}", it.kind, escape(&it.text)));
    bullets(out, changes, "nothing that the daemon can see")?;
    writeln!(out, "## What the release said\n")?;
    let output =
        doc.output.iter().map(|it| format!("{}{} x {}", it.mark(), it.count, code(&it.example)));
    bullets(out, output, &escape(&doc.without_output()))?;
    writeln!(out, "## Evidence\n")?;
    let words = if doc.evidence_text.is_empty() { "no verdict" } else { &doc.evidence_text };
    writeln!(out, "{}\n", escape(words))?;
    section(
        out,
        doc,
        "root_cause",
        &offers("Hypotheses, by what the daemon saw:", &doc.hypotheses),
    )?;
    section(out, doc, "factors", &offers("Offered:", &doc.factors))?;
    section(out, doc, "remediation", &lines(&doc.remediation))?;
    section(out, doc, "went_well", &lines(&doc.went_well))?;
    section(out, doc, "went_badly", &lines(&doc.went_badly))?;
    write_actions(out, doc)
}

/// A part that people write, below what the daemon offers.
fn section(
    out: &mut String,
    doc: &PostMortem,
    part: &str,
    generated: &[String],
) -> std::fmt::Result {
    let heading = PARTS.iter().find(|(key, ..)| *key == part);
    let Some((_, heading, hint)) = heading else { return Ok(()) };
    writeln!(out, "## {heading}\n")?;
    let text = doc.human.get(part);
    // A summary of a person replaces the generated one; other parts stand beside the offers.
    if part != "summary" || text.is_empty() {
        for line in generated {
            writeln!(out, "{line}")?;
        }
        if !generated.is_empty() {
            writeln!(out)?;
        }
    }
    if text.is_empty() {
        writeln!(out, "<!-- {hint}: -->")?;
    }
    write_part(out, part, text);
    writeln!(out)
}

fn offers(head: &str, offers: &[Offer]) -> Vec<String> {
    if offers.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![head.to_owned(), String::new()];
    for offer in offers {
        let setting =
            offer.setting.as_deref().map_or(String::new(), |it| format!(" Setting: {}.", code(it)));
        let (title, observation) = (escape(&offer.title), escape(&offer.observation));
        lines.push(format!("- **{title}**: {observation}.{setting}"));
    }
    lines
}

fn lines(items: &[String]) -> Vec<String> {
    items.iter().map(|it| format!("- {}", escape(it))).collect()
}

fn bullets(out: &mut String, items: impl Iterator<Item = String>, none: &str) -> std::fmt::Result {
    let mut any = false;
    for item in items {
        any = true;
        writeln!(out, "- {item}")?;
    }
    if !any {
        writeln!(out, "{none}")?;
    }
    writeln!(out)
}

fn write_impact(out: &mut String, doc: &PostMortem) -> std::fmt::Result {
    let it = &doc.impact;
    let mut rows = vec![
        ("Server faults", it.count(it.server_faults)),
        ("Tool faults", it.count(it.tool_faults)),
        ("Rejected calls", it.count(it.client_faults)),
        (it.requests_label(), it.count(it.requests)),
        ("Sessions moved / ended", format!("{} / {}", it.sessions_moved, it.sessions_ended)),
        ("Requests that the rollback interrupted", it.requests_interrupted.to_string()),
    ];
    if let Some(ms) = it.duration_ms {
        rows.push(("First to last bad answer", format_ms(ms)));
    }
    if let Some(burned) = it.budget_burned {
        let percent = format!("{:.1} % of what an hour of this traffic allows", 100.0 * burned);
        rows.push(("Error budget burned", percent));
    }
    writeln!(out, "| | |\n|---|---|")?;
    for (name, value) in rows {
        writeln!(out, "| {name} | {value} |")?;
    }
    if let Some(text) = &it.counterfactual {
        writeln!(out, "\n{}.", escape(text))?;
    }
    writeln!(out)
}

fn write_timeline(out: &mut String, doc: &PostMortem) -> std::fmt::Result {
    writeln!(out, "## Timeline\n\n| UTC | since deploy | kind | what |\n|---|---:|---|---|")?;
    for row in doc.timeline.iter().take(ROWS_MAX) {
        let seconds = row.ms as f64 / 1000.0;
        let kind = if row.is_milestone { format!("**{}**", row.kind) } else { row.kind.clone() };
        writeln!(out, "| {} | {seconds:.3} s | {kind} | {} |", row.at, escape(&row.text))?;
    }
    writeln!(out)?;
    if !doc.nearby.is_empty() {
        writeln!(out, "Other events on this host within half an hour:\n")?;
        bullets(out, doc.nearby.iter().map(|it| escape(it)), "")?;
    }
    if doc.durations.is_empty() {
        return Ok(());
    }
    writeln!(out, "| part | time | faster with |\n|---|---:|---|")?;
    for part in &doc.durations {
        writeln!(out, "| {} | {} | {} |", part.part, format_ms(part.ms), part.faster)?;
    }
    writeln!(out)
}

fn write_failures(out: &mut String, doc: &PostMortem) -> std::fmt::Result {
    writeln!(out, "## What failed\n")?;
    if doc.failures.is_empty() {
        let why = doc.failures_unknown.as_deref().unwrap_or("no call is on record");
        return writeln!(out, "{why}\n");
    }
    let version = escape(&doc.version);
    writeln!(
        out,
        "| call | {version}: server / tool / rejected | of | previous |\n|---|---|---:|---|"
    )?;
    for it in &doc.failures {
        let control = it.control.map_or("-".to_owned(), |(bad, all)| format!("{bad} of {all}"));
        writeln!(
            out,
            "| {} | {} / {} / {} | {} | {control} |",
            code(&it.call),
            it.server_faults,
            it.tool_faults,
            it.client_faults,
            it.requests
        )?;
    }
    writeln!(out)?;
    for sample in &doc.samples {
        let code_text = sample.code.map_or(String::new(), |code| format!("{code} "));
        writeln!(out, "- {}: {code_text}{}", code(&sample.call), code(&sample.message))?;
    }
    if doc.samples.is_empty() { Ok(()) } else { writeln!(out) }
}

fn write_actions(out: &mut String, doc: &PostMortem) -> std::fmt::Result {
    writeln!(out, "## Action items\n")?;
    let actions = doc.actions.iter().map(|it| {
        let mark = if it.done { "x" } else { " " };
        let check =
            if it.check.is_empty() { String::new() } else { format!("; done when: {}", it.check) };
        let link = if it.link.is_empty() { String::new() } else { format!("; {}", it.link) };
        format!(
            "[{mark}] {}-{} {}: {} (owner: {}, due: {}{}{})",
            doc.incident,
            it.item,
            it.kind.label(),
            escape(&it.text),
            escape(&it.owner),
            escape(&it.due),
            escape(&check),
            escape(&link),
        )
    });
    bullets(out, actions, "none yet: `rollbackd action add`")?;
    if !doc.suggested_actions.is_empty() {
        writeln!(out, "Suggested:\n")?;
        bullets(out, doc.suggested_actions.iter().map(|it| escape(it)), "")?;
    }
    if doc.state != "closed" && !doc.missing.is_empty() {
        writeln!(out, "Missing before `rollbackd postmortem close`: {}.", doc.missing.join(", "))?;
    }
    Ok(())
}

/// Escapes every character that is markup somewhere in a line, so that a text stays a text: no link, no
/// image, no HTML, no new table cell.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\\' | '`' | '*' | '[' | ']' | '|' | '#' | '!' | '~' => {
                escaped.push('\\');
                escaped.push(c);
            }
            // Between letters it is no emphasis, and names have many.
            '_' => escaped.push_str("\\_"),
            '\n' | '\r' => escaped.push(' '),
            c if c.is_control() => (),
            c => escaped.push(c),
        }
    }
    // A bare address would become a link in some renderers.
    escaped.replace("://", ":\u{2060}//").replace("www.", "www\u{2060}.")
}

/// A text as code. Backticks inside are replaced: a fence of any length could be inside.
fn code(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| !c.is_control())
        .map(|c| match c {
            '`' => '\'',
            '|' => '\u{2502}',
            c => c,
        })
        .collect();
    format!("`{plain}`")
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;
    use crate::incident::{HumanParts, build, example, life::Incident, parse_human};

    fn document() -> PostMortem {
        build(&example::incident(), &example::facts(), HumanParts::default(), &[])
    }

    #[test]
    fn the_parts_of_people_read_back() {
        let mut doc = document();
        doc.human.set("root_cause", "The schema of `forecast` changed.\n\n- twice");
        assert_eq!(parse_human(&render(&doc)), Ok(doc.human.clone()));
    }

    #[test]
    fn hostile_text_is_no_markup() {
        let hostile = "</script><script>alert(1)</script> [x](javascript:alert(1)) ![i](http://h/i) \
                       | `` ` `` *b* <img src=x onerror=y> https://h.example # h";
        let mut doc = document();
        doc.title = hostile.to_owned();
        doc.summary = hostile.to_owned();
        doc.failures[0].call = hostile.to_owned();
        for row in &mut doc.timeline {
            row.text = hostile.to_owned();
        }
        let text = render(&doc);
        for event in Parser::new_ext(&text, Options::all()) {
            let is_markup = match &event {
                Event::Html(html) | Event::InlineHtml(html) => !html.starts_with("<!--"),
                Event::Start(Tag::Link { .. } | Tag::Image { .. }) => true,
                _ => false,
            };
            assert!(!is_markup, "{event:?}");
        }
    }

    #[test]
    fn an_incident_without_facts_still_has_a_document() {
        let doc = build(&Incident::default(), &Default::default(), HumanParts::default(), &[]);
        assert!(render(&doc).contains("## Root cause"));
    }
}
