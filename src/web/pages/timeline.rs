//! A timeline as a list to read.

use maud::{Markup, html};

use crate::model::{ReleaseNumber, TimelineEntry};
use crate::web::format::{date_time, milliseconds, plain};
use crate::web::pages::layout::{PageHead, page};
use crate::web::snapshot::ServiceSnapshot;

/// Lines of the newest deploy on the page of its service.
const NEWEST_SHOWN: usize = 60;
/// Lines of one deploy on its own page; `rollbackd timeline` has all.
const LINES_MAX: usize = 1_000;

/// The newest lines of the newest deploy.
pub(super) fn newest(service: &ServiceSnapshot) -> Markup {
    let entries = &service.entries;
    let skipped = entries.len().saturating_sub(NEWEST_SHOWN);
    let number = entries.last().map(|last| last.deploy);
    html! {
        h2 { "Timeline" }
        @match number {
            None => p.empty { "No event yet." },
            Some(number) => {
                p {
                    a href={ (service.name) "/deploy/" (number) } { "The whole timeline of deploy " (number) }
                    @if skipped > 0 { "; here the last " (NEWEST_SHOWN) " lines" }
                }
                (list(entries.iter().skip(skipped).rev().map(|entry| &**entry)))
            }
        }
    }
}

/// The page of one deploy.
pub(in crate::web) fn deploy(
    service: &str,
    number: ReleaseNumber,
    entries: &[TimelineEntry],
    head: &PageHead<'_>,
) -> String {
    let title = format!("Deploy {number} of {service}");
    let shown = entries.iter().take(LINES_MAX);
    let more = entries.len().saturating_sub(LINES_MAX);
    let main = html! {
        section {
            h1 { (title) }
            p { a href={ (head.root) "service/" (service) } { "Back to " (service) } }
            @if let Some(first) = entries.first() {
                p { "Began " time datetime=(plain(&first.wall_time)) { (date_time(&first.wall_time)) } " UTC." }
            }
            (list(shown))
            @if more > 0 {
                p { (more) " more lines: `rollbackd timeline " (service) " --deploy " (number) "`" }
            }
        }
    };
    page(&format!("{title} - rollbackd"), head, None, &main)
}

fn list<'a>(entries: impl Iterator<Item = &'a TimelineEntry>) -> Markup {
    html! {
        ol.timeline {
            @for entry in entries {
                li class={ "entry kind-" (entry.event.kind()) } {
                    time datetime=(plain(&entry.wall_time)) {
                        (entry.wall_time.get(11..23).map(plain).unwrap_or_default())
                    }
                    " " span.offset { "+" (milliseconds(entry.since_deploy_ms)) }
                    " " strong.kind { (entry.event.kind()) }
                    " " span.because { (plain(&entry.because)) }
                    @if let Some(basis) = entry.event.verdict().and_then(|it| it.basis.as_ref()) {
                        " " span.effects { "rule: " (plain(&basis.to_string())) }
                    }
                    @if !entry.planned_effects.is_empty() {
                        " " span.effects { "then: " (plain(&entry.planned_effects.join(", "))) }
                    }
                }
            }
        }
    }
}
