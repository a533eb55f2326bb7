//! Pages of made-up services.

use std::sync::Arc;

use serde_json::json;

use crate::clock::monotonic;
use crate::control::Status;
use crate::incident::summarise;
use crate::model::TimelineEntry;
use crate::web::pages::{self, PageHead};
use crate::web::samples::Samples;
use crate::web::snapshot::{ServiceSnapshot, Snapshot};

/// A text that breaks out of HTML, of an attribute, of a script, or of its line.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=y> &amp; \u{202e}evil\u{7}";

pub(in crate::web) fn status() -> Status {
    let counts = json!({
        "ok": 900, "server_fault": 12, "tool_fault": 3, "client_fault": 4, "neutral": 5,
        "slow": 6, "with_latency": 900
    });
    let release = |version, number, role| {
        json!({
            "version": version, "number": number, "slot": "blue", "role": role, "probe": "ok",
            "sessions": 4, "in_flight": 1, "rate": 12.5, "error_rate": 0.02, "counts": counts,
            "calls": [{ "method": "tools/call", "name": "forecast", "counts": counts }]
        })
    };
    let status = json!({
        "service": "weather", "listen": "127.0.0.1:8080", "mode": "act", "deploy": 2,
        "phase": "baking", "waits_for": "watches v2", "since_s": 12.0, "remaining_s": 588.0,
        "active": "v2", "warm": "v1", "objective": 0.995, "budget_remaining": 3.0,
        "releases": [release("v2", 2, "active"), release("v1", 1, "warm")],
        "evidence": {
            "objective": "availability", "e_value": 12.0, "threshold": 1000.0,
            "judged": 915, "bad": 15
        },
        "verdict": "measuring: comparing with v1"
    });
    serde_json::from_value(status).unwrap()
}

/// A line of a timeline, `seq` milliseconds after the deploy.
pub(in crate::web) fn entry(kind: &str, seq: u64) -> TimelineEntry {
    let wire = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/0.1.0/timeline.txt"));
    let mut lines = wire.lines().filter_map(|line| line.split_once("  "));
    let (_, json) = lines.find(|(name, _)| *name == kind).unwrap();
    let mut entry: TimelineEntry = serde_json::from_str(json).unwrap();
    (entry.seq, entry.since_deploy_ms, entry.service) = (seq, seq, "weather".to_owned());
    entry
}

fn service(status: Option<Status>, entries: Vec<TimelineEntry>) -> ServiceSnapshot {
    let mut samples = Samples::default();
    for second in 0..30 {
        if let Some(status) = &status {
            let mut status = status.clone();
            status.releases.iter_mut().for_each(|it| it.counts.ok += 10 * second);
            samples.add(crate::model::Moment(1_000 * second), &status);
        }
    }
    let deploys = summarise(&entries, 0);
    ServiceSnapshot {
        name: "weather".to_owned(),
        status: status.map(Arc::new),
        silent_for: None,
        entries: entries.into_iter().map(Arc::new).collect(),
        deploys: deploys.into_iter().collect(),
        samples,
    }
}

fn snapshot(services: Vec<ServiceSnapshot>) -> Snapshot {
    Snapshot::new("2026-11-27T11:12:03.123456Z".to_owned(), monotonic(), services)
}

fn all_pages(services: Vec<ServiceSnapshot>) -> Vec<String> {
    let snapshot = snapshot(services);
    let head = || PageHead { root: "./", events: Some("events"), stale: None };
    let mut pages = vec![pages::host(&snapshot, &head())];
    for service in &snapshot.services {
        pages.push(pages::service(&snapshot, service, &head()));
        let entries: Vec<_> = service.entries.iter().map(|it| TimelineEntry::clone(it)).collect();
        pages.push(pages::deploy("weather", crate::model::ReleaseNumber(2), &entries, &head()));
    }
    pages
}

fn rollback() -> Vec<TimelineEntry> {
    let kinds = ["deployed", "ready", "switched", "detected", "decided", "switched", "recovered"];
    kinds.iter().zip(1..).map(|(kind, seq)| entry(kind, seq)).collect()
}

#[test]
fn text_from_outside_is_escaped_everywhere() {
    // Every text of the status and of the timeline that is no word of the code.
    let mut json = serde_json::to_value(status()).unwrap();
    let hostile_status = |value: &mut serde_json::Value| {
        for key in
            ["waits_for", "hold", "active", "warm", "verdict", "trouble", "listen", "mode", "phase"]
        {
            value[key] = HOSTILE.into();
        }
        value["quarantine"] = json!([HOSTILE]);
        value["evidence"]["objective"] = HOSTILE.into();
        for key in ["version", "slot", "role", "probe"] {
            value["releases"][0][key] = HOSTILE.into();
        }
        for key in ["method", "name"] {
            value["releases"][0]["calls"][0][key] = HOSTILE.into();
        }
    };
    hostile_status(&mut json);
    let status: Status = serde_json::from_value(json).unwrap();
    let mut entries = rollback();
    for entry in &mut entries {
        entry.because = HOSTILE.to_owned();
        entry.planned_effects = vec![HOSTILE.to_owned()];
        entry.wall_time = HOSTILE.to_owned();
    }
    let mut first = serde_json::to_value(&entries[0]).unwrap();
    first["data"]["release"]["version"] = HOSTILE.into();
    entries[0] = serde_json::from_value(first).unwrap();
    for page in all_pages(vec![service(Some(status), entries)]) {
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "only the page's own: {page}");
        assert!(!page.contains("<img"), "{page}");
        assert!(!page.contains(['\u{202e}', '\u{7}']), "{page}");
        for quoted in ["\"'><img", "\"'&gt;"] {
            assert!(!page.contains(quoted), "a quote ends an attribute: {page}");
        }
        assert_eq!(unclosed(&page), Vec::<String>::new(), "{page}");
    }
}

/// The elements that are not closed in their order.
fn unclosed(page: &str) -> Vec<String> {
    const VOID: [&str; 3] = ["meta", "link", "!DOCTYPE"];
    let mut open: Vec<String> = Vec::new();
    for tag in page.split('<').skip(1) {
        let name: String =
            tag.chars().take_while(|c| c.is_alphanumeric() || "/!".contains(*c)).collect();
        match name.strip_prefix('/') {
            Some(name) if open.last().is_some_and(|last| last == name) => _ = open.pop(),
            Some(name) => open.push(format!("/{name}")),
            None if VOID.contains(&name.as_str()) => (),
            None => open.push(name),
        }
    }
    open
}

#[test]
fn services_that_need_a_person_come_first() {
    let named = |name: &str, mut service: ServiceSnapshot| {
        service.name = name.to_owned();
        service
    };
    let mut steady = status();
    (steady.phase, steady.waits_for) = ("steady".to_owned(), "nothing on trial".to_owned());
    let held = Status { hold: Some("maintenance (uid 0)".to_owned()), ..steady.clone() };
    let blocked = vec![entry("deployed", 1), entry("blocked", 2)];
    let silent = ServiceSnapshot {
        silent_for: Some(std::time::Duration::from_secs(9)),
        ..service(None, Vec::new())
    };
    let snapshot = snapshot(vec![
        named(
            "a-fine",
            service(Some(steady.clone()), vec![entry("deployed", 1), entry("accepted", 2)]),
        ),
        named("b-moving", service(Some(status()), vec![entry("deployed", 1)])),
        named("c-held", service(Some(held), Vec::new())),
        named("d-rolled-back", service(Some(steady), rollback())),
        named("e-blocked", service(Some(status()), blocked)),
        named("f-silent", silent),
    ]);
    let head = PageHead { root: "./", events: Some("events"), stale: None };
    let page = pages::host(&snapshot, &head);
    let order: Vec<_> =
        page.split("href=\"service/").skip(1).map(|it| it.split('"').next().unwrap()).collect();
    assert_eq!(order, ["e-blocked", "f-silent", "c-held", "d-rolled-back", "b-moving", "a-fine"]);
    assert!(page.contains("2 of 6 services need a person now"), "{page}");
    assert!(page.contains("<title>(2) rollbackd</title>"), "{page}");
    assert!(page.len() < 60_000, "{} bytes", page.len());
}

#[test]
fn a_page_is_complete_without_a_script_and_says_when_it_is_old() {
    let service = service(Some(status()), rollback());
    let snapshot = snapshot(vec![service]);
    let stale = Some(std::time::Duration::from_secs(7));
    let head = PageHead { root: "../", events: Some("weather/events"), stale };
    let page = pages::service(&snapshot, &snapshot.services[0], &head);
    for text in [
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        "No word from the daemon for 7 s",
        "aria-label=\"E-value over the last 29 s: now 12, threshold 1,000.\"",
        "15 of 915 requests bad",
        "v2 ",
        "data-events=\"weather/events\"",
        "href=\"../style.css\"",
        "href=\"weather/deploy/",
        "rolled back",
        "No guard blocks a rollback.",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    for outside in ["http://", "https://", "style=", "onclick", "javascript:"] {
        assert!(!page.contains(outside), "{outside} in {page}");
    }
}

#[test]
fn empty_and_broken_numbers_have_their_words() {
    let mut status = status();
    (status.evidence, status.releases) = (None, Vec::new());
    (status.phase, status.active) = ("empty".to_owned(), None);
    let page = &all_pages(vec![service(Some(status.clone()), Vec::new())])[1];
    for text in [
        "No release runs.",
        "Nothing is judged now",
        "No event yet.",
        "None yet.",
        "No request was judged yet.",
    ] {
        assert!(page.contains(text), "{text} in {page}");
    }
    status.evidence = Some(crate::model::Evidence {
        e_value: f64::INFINITY,
        threshold: f64::NAN,
        ..crate::model::Evidence::default()
    });
    let page = &all_pages(vec![service(Some(status), Vec::new())])[1];
    let numbers = page.split('"').filter(|it| it.parse::<f64>().is_ok_and(|it| !it.is_finite()));
    assert_eq!(numbers.count(), 0, "a number of a chart that is none: {page}");
    let page =
        pages::host(&snapshot(Vec::new()), &PageHead { root: "./", events: None, stale: None });
    assert!(page.contains("No service is configured"));
}
