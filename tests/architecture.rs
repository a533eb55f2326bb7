//! Promises about the code itself: which room imports which, what is pure, how long a file may be,
//! and which words are names.
//!
//! A search for text is a tripwire, not a proof. Clippy counts the lines of functions.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/known.rs"]
mod known;
#[path = "architecture/sources.rs"]
mod sources;

use std::collections::BTreeSet;

use imports::{ImportGraph, Modules, files_in_circles, use_statements};
use known::assert_known;
use sources::{SourceFile, code_of, rust_files};

/// A room, and the rooms that it may import besides itself.
type Row = (&'static str, &'static [&'static str]);

/// The rooms of src. `signal` and `act` never meet.
const ROOMS: &[Row] = &[
    ("model", &[]),
    ("mcp", &["model"]),
    ("judge", &["model"]),
    ("decide", &["model"]),
    ("machine", &["model", "judge", "decide"]),
    ("incident", &["model", "judge"]),
    ("clock", &["model"]),
    ("mutex", &[]),
    ("critical", &["mutex"]),
    ("content_coding", &["mcp"]),
    ("open_files", &["clock", "mutex"]),
    ("files", &[]),
    ("tls", &[]),
    ("artifact", &["model", "tls"]),
    ("config", &["model", "judge", "decide", "incident", "artifact"]),
    ("systemd", &[]),
    ("record", &["model", "incident", "critical", "files", "mutex"]),
    ("signal", &["model", "mcp", "content_coding", "open_files", "tls", "config", "systemd"]),
    ("act", &["model", "config", "systemd", "files"]),
    (
        "proxy",
        &[
            "model",
            "mcp",
            "content_coding",
            "open_files",
            "config",
            "clock",
            "critical",
            "files",
            "mutex",
        ],
    ),
    ("control", &["model", "incident"]),
    (
        "service",
        &[
            "model", "judge", "decide", "machine", "clock", "critical", "artifact", "config",
            "systemd", "record", "signal", "act", "proxy", "control", "mutex",
        ],
    ),
    ("notify", &["model", "incident", "clock", "tls", "config", "record", "mutex"]),
    ("web", &["model", "incident", "clock", "config", "record", "proxy", "control", "service"]),
    (
        "daemon",
        &[
            "model",
            "decide",
            "incident",
            "clock",
            "critical",
            "open_files",
            "artifact",
            "config",
            "systemd",
            "record",
            "proxy",
            "control",
            "service",
            "notify",
            "web",
            "mutex",
        ],
    ),
    ("backtest", &["model", "judge", "decide", "machine", "incident", "tls", "config", "record"]),
    ("demo", &["model", "mcp", "clock", "control", "mutex"]),
    ("init", &["mcp"]),
    ("preflight", &["model", "artifact", "config", "systemd", "record", "act"]),
    (
        "cli",
        &[
            "model",
            "incident",
            "config",
            "record",
            "signal",
            "control",
            "notify",
            "daemon",
            "backtest",
            "demo",
            "init",
            "preflight",
            "mutex",
        ],
    ),
];

/// The rooms of src/proxy. `mod` is the proxy itself.
const PROXY_ROOMS: &[Row] = &[
    ("backend", &[]),
    ("session", &["backend"]),
    ("shadow", &["backend"]),
    ("routing", &["session", "backend"]),
    ("exchange", &["routing", "session", "shadow", "backend"]),
    ("handover", &["session", "routing", "backend"]),
    ("server", &["exchange", "routing", "backend"]),
    ("mod", &["backend", "session", "shadow", "routing", "exchange", "handover", "server"]),
    ("handover_control", &["handover", "mod"]),
    ("observations", &["mod"]),
    ("bounds", &["mod"]),
    ("shadow_control", &["shadow", "mod"]),
    ("trial_control", &["backend", "routing", "mod"]),
];

/// What the supervisor knows of the service that it works for: where it reports to.
const SUPERVISOR_MAY_IMPORT: &[&str] =
    &["src/service/inbox.rs", "src/service/heartbeat.rs", "src/service/reports.rs"];

/// The pure rooms: no clock, no runtime, no disk, no network, no chance.
const PURE: &[&str] = &["model", "mcp", "judge", "decide", "machine", "incident"];
const IMPURE: &[&str] = &[
    "tokio",
    "tokio::time",
    "hyper",
    "reqwest",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "tracing",
    "Instant",
    "SystemTime",
    "jiff::",
    "getrandom",
    "async ",
    "Mutex",
    "Atomic",
];

/// Words that once were names here and have no meaning in this field.
const PRIVATE_WORDS: &str = "adrift conduct courier crew crowd deaf desk dice doubt doubted \
    doubtful ear farewell fate flaw guest hear heard heir herald heritage hire hired hush keeper \
    leaver leavers leftovers mouth mute parcel passage pulse reign reins ruling said say says \
    seal seals shaken spoiled stray talk tell told toll torn wish";

const LINES_MAX: usize = 400;
/// Put together here, so that this file does not find itself.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[al", "low"), concat!("#![al", "low")];

#[test]
fn rooms_depend_one_way() {
    let mut used = BTreeSet::new();
    for (from, to) in edges(&rust_files("src")) {
        let (from_room, to_room) = (top_room(&from), top_room(&to));
        if from_room == to_room || ["lib", "main"].contains(&from_room) {
            continue;
        }
        let allowed = row(ROOMS, from_room).contains(&to_room);
        assert!(allowed, "{from}: `{from_room}` may not import `{to_room}`");
        used.insert((from_room.to_owned(), to_room.to_owned()));
    }
    for (from, allowed) in ROOMS {
        let unused: Vec<_> =
            allowed.iter().filter(|to| !used.contains(&((*from).into(), (**to).into()))).collect();
        assert!(
            unused.is_empty(),
            "`{from}` imports nothing of {unused:?}: take them from its row"
        );
    }
}

#[test]
fn rooms_of_the_proxy_depend_one_way() {
    let room = |file: &str| {
        let rest = file.strip_prefix("src/proxy/").unwrap();
        rest.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    };
    let mut arrows = BTreeSet::new();
    for (from, to) in edges_within(&rust_files("src"), "src/proxy/") {
        let (from, to) = (room(&from), room(&to));
        if from != to && !row(PROXY_ROOMS, &from).contains(&to.as_str()) {
            arrows.insert(format!("{from} -> {to}"));
        }
    }
    assert_known("arrow in proxy:", &arrows);
}

#[test]
fn supervisor_imports_little_of_its_service() {
    for (from, to) in edges_within(&rust_files("src"), "src/service/") {
        let is_inside = |file: &str| file.starts_with("src/service/supervisor/");
        let allowed = SUPERVISOR_MAY_IMPORT.contains(&to.as_str());
        assert!(!is_inside(&from) || is_inside(&to) || allowed, "{from} may not import {to}");
    }
}

#[test]
fn tables_are_ordered() {
    for table in [ROOMS, PROXY_ROOMS] {
        for (index, (room, allowed)) in table.iter().enumerate() {
            for target in *allowed {
                let stands_before = table[..index].iter().any(|(name, _)| name == target);
                assert!(stands_before, "`{room}` imports `{target}`, which comes after it");
            }
        }
    }
    assert!(!row(ROOMS, "signal").contains(&"act") && !row(ROOMS, "act").contains(&"signal"));
}

#[test]
fn no_import_circle_inside_a_room() {
    let graph = graph(&rust_files("src"));
    let circles = files_in_circles(&graph, |from, to| top_room(from) == top_room(to));
    assert_known("file in a circle:", &circles);
}

#[test]
fn every_import_form_is_detected() {
    let paths = |code: &str| -> Vec<String> {
        use_statements(code).iter().map(|it| it.segments.join("::")).collect()
    };
    assert_eq!(
        paths("use crate::a::B;\nuse a::{b, c::{self, D as E}};"),
        ["crate::a::B", "a::b", "a::c", "a::c::D"]
    );
    assert_eq!(
        paths("pub(super) use crate::{\n    proxy::{A, B},\n    record,\n};"),
        ["crate::proxy::A", "crate::proxy::B", "crate::record"]
    );
    let code = code_of("a /* b */ \"c\\\"d\" r#\"e\"f\"# 'g' '\\'' fn h<'i>() // j\nk");
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "fn", "h<'i>()", "k"]);
}

#[test]
fn pure_rooms_do_no_io() {
    for file in rust_files("src").iter().filter(|it| PURE.contains(&top_room(it.name()))) {
        for line in file.code.lines() {
            for name in IMPURE {
                let found = line.contains(name);
                assert!(!found, "{}: no `{name}` in a pure room: {line}", file.name());
            }
        }
    }
}

#[test]
fn only_the_clock_reads_the_time() {
    let reads = |file: &&SourceFile| {
        file.name() != "src/clock.rs"
            && ["Instant::now", "SystemTime::now", "Timestamp::now"]
                .iter()
                .any(|it| file.code.contains(it))
    };
    let sources = rust_files("src");
    let readers = sources.iter().filter(reads).map(|file| file.name().to_owned()).collect();
    assert_known("reads the time:", &readers);
}

#[test]
fn names_are_words_of_this_field() {
    let private: Vec<_> = PRIVATE_WORDS.split_whitespace().collect();
    let mut found = BTreeSet::new();
    for file in rust_files("src") {
        for name in file.code.split(|c: char| !(c.is_alphanumeric() || c == '_')) {
            if words_of(name).iter().any(|word| private.contains(&word.as_str())) {
                found.insert(format!("{name} in {}", file.name()));
            }
        }
        for word in file.module().iter().flat_map(|name| words_of(name)) {
            assert!(!private.contains(&word.as_str()), "{}: `{word}`", file.name());
        }
    }
    assert_known("name:", &found);
}

#[test]
fn files_are_within_the_line_limit() {
    let lines = |file: &SourceFile| file.text.lines().count();
    let sources = all_sources();
    let long: Vec<_> = sources.iter().filter(|file| LINES_MAX < lines(file)).collect();
    let long: Vec<_> = long.into_iter().map(|file| (file.name(), lines(file))).collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines, split them: {long:?}");
}

#[test]
fn no_todo_or_lint_suppression() {
    for file in all_sources() {
        for mark in UNFINISHED {
            let found = file.text.lines().find(|line| line.contains(mark));
            assert!(found.is_none(), "{}: {}", file.name(), found.unwrap_or_default());
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[ig", "nore");
    for file in all_sources() {
        assert!(!file.text.contains(ignored), "{}: a test is switched off", file.name());
    }
    for file in rust_files("tests") {
        let is_target = file.path.components().count() == 2;
        let tests = ["#[test]", "#[tokio::test", "proptest!", "libtest_mimic::run"];
        let has_test = tests.iter().any(|it| file.text.contains(it));
        assert!(!is_target || has_test, "{}: no test in it", file.name());
    }
}

fn all_sources() -> Vec<SourceFile> {
    rust_files("src").into_iter().chain(rust_files("tests")).collect()
}

fn graph(sources: &[SourceFile]) -> ImportGraph {
    Modules::new(sources).graph()
}

/// Every import, as a pair of files.
fn edges(sources: &[SourceFile]) -> Vec<(String, String)> {
    let graph = graph(sources).into_iter();
    graph.flat_map(|(from, to)| to.into_iter().map(move |to| (from.clone(), to))).collect()
}

fn edges_within(sources: &[SourceFile], folder: &str) -> Vec<(String, String)> {
    let mut edges = edges(sources);
    edges.retain(|(from, to)| from.starts_with(folder) && to.starts_with(folder));
    assert!(!edges.is_empty(), "no import in {folder}");
    edges
}

fn row(table: &[Row], room: &str) -> &'static [&'static str] {
    let row = table.iter().find(|(name, _)| *name == room);
    row.unwrap_or_else(|| panic!("add `{room}` to its table")).1
}

/// `src/proxy/mod.rs` is in `proxy`, `src/clock.rs` in `clock`.
fn top_room(file: &str) -> &str {
    let rest = file.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The words of a name in snake case or camel case, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}
