//! The host: all services, those that need a person first.

use std::sync::Arc;

use maud::{Markup, html};

use crate::control::Status;
use crate::web::attention::{Attention, Level, attention};
use crate::web::format::{count, percent, plain, seconds};
use crate::web::pages::layout::{PageHead, page, sections};
use crate::web::snapshot::{Sections, ServiceSnapshot, Snapshot};

/// The page.
pub(in crate::web) fn host(snapshot: &Snapshot, head: &PageHead<'_>) -> String {
    let main = sections(host_sections(snapshot));
    page(&title(&sorted(snapshot)), head, Some(&snapshot.wall_time), &main)
}

/// The sections of the page.
pub(in crate::web) fn host_sections(snapshot: &Snapshot) -> &Sections {
    snapshot.host_sections(render)
}

fn render(snapshot: &Snapshot) -> Sections {
    let services = sorted(snapshot);
    let content = |markup: Markup| Arc::from(markup.into_string());
    vec![("summary", content(summary(&services))), ("services", content(table(&services)))]
}

type Row<'a> = (&'a ServiceSnapshot, Attention);

fn sorted(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let mut rows: Vec<_> = snapshot.services.iter().map(|it| (it, attention(it))).collect();
    rows.sort_by(|(a, a_level), (b, b_level)| {
        (a_level.level, &a.name).cmp(&(b_level.level, &b.name))
    });
    rows
}

fn needing(rows: &[Row<'_>], level: Level) -> usize {
    rows.iter().filter(|(_, attention)| attention.level == level).count()
}

fn title(rows: &[Row<'_>]) -> String {
    match needing(rows, Level::Now) {
        0 => "rollbackd".to_owned(),
        number => format!("({number}) rollbackd"),
    }
}

fn summary(rows: &[Row<'_>]) -> Markup {
    let (now, soon) = (needing(rows, Level::Now), needing(rows, Level::Soon));
    let (total, moving) = (rows.len(), needing(rows, Level::Moving));
    let services = if total == 1 { "service" } else { "services" };
    let need = |number| if number == 1 { "needs" } else { "need" };
    html! {
        h1 data-title=(title(rows)) {
            @if total == 0 { "No service is configured" }
            @else if now > 0 { (now) " of " (total) " " (services) " " (need(now)) " a person now" }
            @else if soon > 0 { (soon) " of " (total) " " (services) " " (need(soon)) " a look" }
            @else if moving > 0 { (moving) " of " (total) " " (services) " in progress" }
            @else { "All is well on " (total) " " (services) }
        }
    }
}

fn table(rows: &[Row<'_>]) -> Markup {
    html! {
        ul.services {
            @for (service, attention) in rows { (card(service, attention)) }
        }
    }
}

fn card(service: &ServiceSnapshot, attention: &Attention) -> Markup {
    let level = attention.level;
    html! {
        li class={ "card " (level.class()) } {
            h2 { a href={ "service/" (service.name) } { (service.name) } }
            p.badge { (level.label()) }
            @if !attention.reason.is_empty() { p.reason { (attention.reason) } }
            @match service.status.as_deref() {
                Some(status) => (facts(status)),
                None => p.empty { "No status yet." }
            }
        }
    }
}

fn facts(status: &Status) -> Markup {
    let active = status.releases.iter().find(|it| it.role == "active");
    html! {
        dl.facts {
            dt { "Active" }
            dd { (plain(status.active.as_deref().unwrap_or("none"))) }
            dt { "Phase" }
            dd {
                (plain(&status.phase))
                @if status.phase != "empty" { " for " (seconds(status.since_s)) }
            }
            @if let Some(active) = active {
                dt { "Traffic" }
                dd {
                    (format!("{:.1}", active.rate)) " requests/s, " (percent(active.error_rate))
                    " failed, " (count(active.sessions)) " sessions"
                }
            }
            dt { "Mode" }
            dd { (plain(&status.mode)) }
        }
    }
}
