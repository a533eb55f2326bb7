//! What all pages share.

use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::web::snapshot::Sections;

/// What differs between the heads of the pages.
pub(in crate::web) struct PageHead<'a> {
    /// The relative path to the first page, so that a proxy can serve the page below any path.
    pub root: &'a str,
    /// The relative path to the event stream.
    pub events: Option<&'a str>,
    /// How old the data is, if that is too old.
    pub stale: Option<Duration>,
}

/// Seconds between two reloads without JavaScript.
const RELOAD_INTERVAL_S: &str = "5";

/// A whole page. `time` is the wall's time of the data.
pub(super) fn page(title: &str, head: &PageHead<'_>, time: Option<&str>, main: &Markup) -> String {
    let root = head.root;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href={ (root) "icon.svg" } type="image/svg+xml";
                link rel="stylesheet" href={ (root) "style.css" };
                @if head.events.is_some() {
                    noscript { meta http-equiv="refresh" content=(RELOAD_INTERVAL_S); }
                    script src={ (root) "script.js" } defer {}
                }
            }
            body data-events=[head.events] {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.home href=(root) { "rollbackd" }
                    @if let Some(time) = time {
                        p.live {
                            span #link-state { "As of" } " "
                            time #as-of datetime=(time) { (time.get(11..19).unwrap_or(time)) }
                            " UTC"
                        }
                    }
                }
                p.stale #stale role="status" data-stale=[head.stale.map(|_| "server")] {
                    @if let Some(age) = head.stale {
                        "No word from the daemon for " (age.as_secs()) " s. What you see is that old."
                    }
                }
                main #main tabindex="-1" { (main) }
                footer { p { "Read-only. rollbackd " (env!("CARGO_PKG_VERSION")) } }
            }
        }
    };
    page.into_string()
}

/// The sections of a page in their elements. The script replaces their content.
pub(super) fn sections(sections: &Sections) -> Markup {
    html! {
        @for (id, content) in sections {
            section id=(id) { (PreEscaped(&**content)) }
        }
    }
}

/// A page with one message: errors, and the start of the daemon.
pub(in crate::web) fn message(root: &str, title: &str, text: &str) -> String {
    let head = PageHead { root, events: None, stale: None };
    let main = html! {
        h1 { (title) }
        p { (text) }
        p { a href=(root) { "All services" } }
    };
    page(&format!("{title} - rollbackd"), &head, None, &main)
}
