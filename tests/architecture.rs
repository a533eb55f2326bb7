//! Promises about the code itself: who may import whom, what is pure, how long a file may be.
//!
//! A search for text is a tripwire, not a proof. Clippy counts the lines of functions.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer, and the layers it may import besides itself. `signal` and `act` never meet.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("mcp", &["model"]),
    ("judge", &["model"]),
    ("decide", &["model"]),
    ("clock", &["model"]),
    ("artifact", &["model"]),
    ("config", &["model", "judge", "decide", "artifact"]),
    ("systemd", &[]),
    ("record", &["model"]),
    ("signal", &["model", "mcp", "config", "systemd"]),
    ("act", &["model", "config", "systemd"]),
    ("proxy", &["model", "mcp", "config", "clock"]),
    ("control", &["model"]),
    (
        "service",
        &[
            "model", "judge", "decide", "clock", "artifact", "config", "systemd", "record",
            "signal", "act", "proxy", "control",
        ],
    ),
    (
        "daemon",
        &[
            "model", "judge", "decide", "clock", "artifact", "config", "systemd", "record",
            "signal", "act", "proxy", "control", "service",
        ],
    ),
    ("backtest", &["model", "judge", "decide", "config", "record"]),
    ("demo", &["model", "mcp", "clock", "control"]),
    ("cli", &["model", "judge", "config", "record", "control", "daemon", "backtest", "demo"]),
];

/// The pure layers: no clock, no runtime, no disk, no network, no chance.
const PURE: &[&str] = &["model", "mcp", "judge", "decide"];
const IMPURE: &[&str] = &[
    "tokio",
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

const LINES_MAX: usize = 400;
/// Put together here, so that this file does not find itself.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[al", "low"), concat!("#![al", "low")];

#[test]
fn layers_depend_one_way() {
    for (path, text) in rust_files("src") {
        let layer = layer_of(&path);
        if layer == "lib" || layer == "main" {
            continue;
        }
        let allowed = allowed_imports(&layer);
        for target in imports(&text) {
            assert!(
                target == layer || allowed.contains(&target.as_str()),
                "{}: `{layer}` may not import `{target}`",
                path.display()
            );
        }
    }
}

#[test]
fn layer_table_is_ordered() {
    let before = |index: usize| LAYERS.iter().take(index).map(|(name, _)| *name);
    for (index, (layer, allowed)) in LAYERS.iter().enumerate() {
        for target in *allowed {
            assert!(
                before(index).any(|name| name == *target),
                "`{layer}` imports `{target}`, which comes after it"
            );
        }
    }
    assert!(
        !allowed_imports("signal").contains(&"act") && !allowed_imports("act").contains(&"signal")
    );
}

#[test]
fn every_import_form_is_detected() {
    let text =
        "use crate::model::Event;\nlet x = crate::act::go();\nuse crate::{judge, decide::X};";
    assert_eq!(imports(text), ["model", "act", "judge", "decide"]);
    assert_eq!(imports("use crate::{\n    proxy::{A, B},\n    record,\n};"), ["proxy", "record"]);
}

#[test]
fn pure_layers_do_no_io() {
    for (path, text) in rust_files("src") {
        if !PURE.contains(&layer_of(&path).as_str()) {
            continue;
        }
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in IMPURE {
                assert!(
                    !line.contains(name),
                    "{}: `{name}` does not belong in a pure layer: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn files_are_within_the_line_limit() {
    let long: Vec<_> = all_sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| LINES_MAX < *lines)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines, split them: {long:?}");
}

#[test]
fn no_todo_or_lint_suppression() {
    for (path, text) in all_sources() {
        for mark in UNFINISHED {
            let found = text.lines().find(|line| line.contains(mark));
            assert!(found.is_none(), "{}: {}", path.display(), found.unwrap_or_default());
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[ig", "nore");
    for (path, text) in all_sources() {
        assert!(!text.contains(ignored), "{}: a test is switched off", path.display());
    }
    for (path, text) in rust_files("tests") {
        let is_target = path.components().count() == 2;
        let tests = ["#[test]", "#[tokio::test", "proptest!"];
        assert!(
            !is_target || tests.iter().any(|it| text.contains(it)),
            "{}: no test in it",
            path.display()
        );
    }
}

fn allowed_imports(layer: &str) -> &'static [&'static str] {
    let row = LAYERS.iter().find(|(name, _)| *name == layer);
    row.unwrap_or_else(|| panic!("add the layer `{layer}` to LAYERS")).1
}

/// The top-level modules that a text names after `crate::`.
fn imports(text: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut found = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.push(name(rest));
            continue;
        };
        let mut depth = 0_u32;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => found.push(name(&std::mem::take(&mut item))),
                '{' => depth += 1,
                '}' => depth -= 1,
                c if depth == 0 => item.push(c),
                _ => (),
            }
        }
        found.push(name(&item));
    }
    found.retain(|name| !name.is_empty());
    found
}

fn layer_of(path: &Path) -> String {
    let first = path.strip_prefix("src").unwrap().iter().next().unwrap();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn all_sources() -> Vec<(PathBuf, String)> {
    rust_files("src").into_iter().chain(rust_files("tests")).collect()
}

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let hidden = ["node_modules", "target"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}
