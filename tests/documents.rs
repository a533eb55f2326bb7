//! The documents against the code: each configuration key, event kind, phase, guard, exit code,
//! problem code and metric has its entry in packaging/manual, and no entry is stale.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "../packaging/markdown.rs"]
mod markdown;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use rollbackd::cli::Cli;
use rollbackd::model::{Guard, TimelineEvent};

const README: &str = include_str!("../README.md");
const EXAMPLE: &str = include_str!("../config.toml.example");

/// Words that the code writes until the renames are merged, and the words of the documents. A row
/// goes when the code no longer writes its first word.
const RENAMED: &[(&str, &str)] = &[];
/// The same for paths that README names.
const MOVED: &[(&str, &str)] = &[];

/// Language that the documents do not use.
const BANNED: &[&str] = &[
    "can not",
    "nobody",
    "whoever",
    "wakes",
    "wake a",
    "awake",
    "of ours",
    "let go",
    "behind our",
];
const WORDS_MAX: usize = 25;

#[test]
fn every_key_of_the_configuration_has_its_entry() {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches('#').trim_start();
        let line = line.strip_prefix("For example: ").unwrap_or(line);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.replace("weather", "NAME").replace("pager", "NAME");
        } else if let Some((key, _)) = line.split_once(" = ")
            && is_word(key)
        {
            keys.insert(format!("{section} {}", renamed(key)));
        }
    }
    assert!(keys.len() > 45, "{keys:?}");
    let page = page("config.md");
    let sections = page.sections.iter().filter(|it| it.title.starts_with('['));
    let entries: BTreeSet<_> = sections
        .flat_map(|it| it.entries.iter().map(|entry| format!("{} {entry}", it.title)))
        .collect();
    assert_eq!(entries, keys, "the entries of config.md, and the keys of config.toml.example");
}

/// Editors learn the settings from the schema.
#[test]
fn the_schema_has_every_key() {
    let page = page("config.md");
    let sections = page.sections.iter().filter(|it| it.title.starts_with('['));
    let entries: BTreeSet<_> = sections
        .flat_map(|it| it.entries.iter().map(|entry| format!("{} {entry}", it.title)))
        .collect();
    let keys: BTreeSet<_> =
        rollbackd::config::keys().iter().map(|it| format!("{} {}", it.table, it.name)).collect();
    assert_eq!(entries, keys, "the entries of config.md, and the keys of src/config/schema.rs");
}

#[test]
fn every_event_kind_has_its_entry() {
    let mut kinds = variants::<TimelineEvent>(&serde_json::json!({"kind": "no such kind"}));
    kinds.insert("page".to_owned());
    // Names of 0.1.0, which are read and never written.
    kinds.retain(|it| it != "found" && it != "asked_again");
    compare("timeline.md", "Event kinds", &kinds, 20);
}

#[test]
fn every_guard_has_its_entry() {
    let guards = variants::<Guard>(&serde_json::json!("no such guard"));
    compare("deciding.md", "Guards", &guards, 8);
}

#[test]
fn every_phase_has_its_entry() {
    compare("timeline.md", "Phases", &words_beside("steady"), 10);
}

#[test]
fn every_problem_code_has_its_entry() {
    compare("timeline.md", "Problem codes", &words_beside("unreadable"), 20);
}

#[test]
fn every_finding_of_check_has_its_entry() {
    let host = rust_in(Path::new("src/preflight"));
    let host = host.iter().flat_map(|(_, text)| text.split('"'));
    let host = host.filter(|it| it.strip_prefix("host-").is_some_and(is_word));
    let check = fs::read_to_string("src/cli/check.rs").unwrap();
    let warnings = check.split("print_warnings_json(\"").skip(1);
    let warnings = warnings.filter_map(|it| it.split('"').next());
    let codes = host.chain(warnings).map(str::to_owned).collect();
    compare("timeline.md", "Findings of check", &codes, 9);
}

#[test]
fn the_settings_of_a_post_mortem_are_named() {
    let page = fs::read_to_string("packaging/manual/incidents.md").unwrap();
    let list = page.split("The settings are ").nth(1).and_then(|it| it.split(". ").next()).unwrap();
    let list = list.split('\n').next().unwrap();
    let named: BTreeSet<_> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, BTreeSet::from(rollbackd::config::SETTING_NAMES));
}

#[test]
fn every_exit_code_has_its_entry() {
    let help = Cli::command().get_after_help().expect("the exit codes").to_string();
    let codes = help.lines().filter_map(|line| {
        let (code, _) = line.trim_start().split_once("  ")?;
        code.parse::<u8>().ok().map(|code| code.to_string())
    });
    compare("timeline.md", "Exit codes", &codes.collect(), 13);
}

#[test]
fn every_metric_has_its_entry() {
    let mut metrics = BTreeSet::new();
    for (path, text) in rust_in(Path::new("src")) {
        let inside = path.components().any(|it| it.as_os_str() == "metrics");
        let names = text.split('"').filter(|it| inside && it.starts_with("rollbackd_"));
        metrics.extend(names.filter(|it| is_word(it)).map(str::to_owned));
    }
    compare("timeline.md", "Metrics", &metrics, 30);
}

#[test]
fn every_page_renders() {
    let pages = pages();
    assert!(pages.len() > 6);
    for (path, text) in pages {
        let page = markdown::render(&text).unwrap_or_else(|why| panic!("{path:?}: {why}"));
        assert!(page.file.starts_with("rollbackd"), "{path:?}: {}", page.file);
        let lost = page.roff.matches("\n.TP\n").count();
        assert_eq!(lost, text.matches("\n### ").count(), "{path:?}");
    }
}

#[test]
fn the_readme_is_short() {
    assert!(README.len() <= 8192, "{} bytes", README.len());
    let section = |name: &str| {
        let (_, rest) = README.split_once(&format!("\n## {name}\n")).expect("the section");
        rest.split("\n## ").next().unwrap_or_default().to_owned()
    };
    assert!(section("Contributing").trim().lines().count() <= 30);
    assert!(section("Glossary").matches("\n- ").count() <= 40);
}

#[test]
fn the_paths_in_the_readme_exist() {
    let spans = spans(README);
    let paths = spans
        .iter()
        .filter(|it| ["src/", "tests/", "packaging/"].iter().any(|root| it.starts_with(root)));
    let mut count = 0;
    for path in paths {
        let before = MOVED.iter().find(|(_, after)| after == path).map(|(before, _)| *before);
        let exists =
            [Some(path.as_str()), before].into_iter().flatten().any(|it| Path::new(it).exists());
        assert!(exists, "README names {path}");
        count += 1;
    }
    assert!(count > 10, "{count} paths");
}

#[test]
fn the_language_is_plain() {
    let mut wrong = Vec::new();
    for (path, text) in pages().into_iter().chain([(PathBuf::from("README.md"), README.to_owned())])
    {
        for sentence in sentences(&text) {
            let words = sentence.split_whitespace().filter(|it| it.contains(char::is_alphanumeric));
            let count = words.count();
            if count > WORDS_MAX {
                wrong.push(format!("{}: {count} words: {sentence}", path.display()));
            }
            let lower = sentence.to_lowercase();
            for banned in BANNED.iter().filter(|it| lower.contains(*it)) {
                wrong.push(format!("{}: `{banned}`: {sentence}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A page of the manual: what its headings name.
struct Page {
    sections: Vec<Section>,
}

struct Section {
    title: String,
    entries: Vec<String>,
}

fn page(file: &str) -> Page {
    let text = fs::read_to_string(Path::new("packaging/manual").join(file)).unwrap();
    let mut sections: Vec<Section> = Vec::new();
    let mut heading = None;
    for event in Parser::new(&text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::Text(text) | Event::Code(text) => {
                if let Some((_, title)) = &mut heading {
                    title.push_str(&text);
                }
            }
            Event::End(TagEnd::Heading(_)) => match heading.take() {
                Some((HeadingLevel::H2, title)) => {
                    sections.push(Section { title, entries: Vec::new() });
                }
                Some((HeadingLevel::H3, title)) => {
                    let section = sections.last_mut().expect("a section before its entries");
                    assert!(!section.entries.contains(&title), "{file}: `{title}` twice");
                    section.entries.push(title);
                }
                _ => (),
            },
            _ => (),
        }
    }
    Page { sections }
}

/// Holds the entries of a section to the words of the code, of which there are at least `least`.
fn compare(file: &str, section: &str, words: &BTreeSet<String>, least: usize) {
    let words: BTreeSet<_> = words.iter().map(|it| renamed(it)).collect();
    assert!(words.len() >= least, "{section}: only {words:?} found in the code");
    let page = page(file);
    let section = page.sections.iter().find(|it| it.title == section).expect("the section");
    let entries: BTreeSet<_> = section.entries.iter().map(String::as_str).collect();
    let missing: Vec<_> = words.difference(&entries).collect();
    let stale: Vec<_> = entries.difference(&words).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "{file}, {}: missing {missing:?}, stale {stale:?}",
        section.title
    );
}

fn renamed(word: &str) -> &str {
    RENAMED.iter().find(|(before, _)| *before == word).map_or(word, |(_, after)| after)
}

/// The variants of an enum, from the error with which serde refuses another one.
fn variants<T: serde::de::DeserializeOwned>(unknown: &serde_json::Value) -> BTreeSet<String> {
    let error = serde_json::from_value::<T>(unknown.clone()).err().expect("unknown").to_string();
    let (_, list) = error.split_once("expected one of").expect("a list of the variants");
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words in the arms of the `match` that has an arm `=> "word"`. The library has no list of
/// these; where it gets one, read that.
fn words_beside(word: &str) -> BTreeSet<String> {
    let arm = |line: &str| {
        let (_, value) = line.split_once("=> \"")?;
        value.split_once("\",").map(|(word, _)| word.to_owned())
    };
    let mut found = BTreeSet::new();
    for (_, text) in rust_in(Path::new("src")) {
        let lines: Vec<_> = text.lines().map(arm).collect();
        for arms in lines.split(Option::is_none) {
            if arms.iter().flatten().any(|it| it == word) {
                found.extend(arms.iter().flatten().cloned());
            }
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|it| it.is_ascii_lowercase() || it == '_')
}

fn pages() -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir("packaging/manual").unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands in backticks.
fn spans(text: &str) -> Vec<String> {
    let code = |event| match event {
        Event::Code(text) => Some(text.to_string()),
        _ => None,
    };
    Parser::new(text).filter_map(code).collect()
}

/// The sentences of a text, without its code blocks. What stands in backticks is one word.
fn sentences(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut current = String::new();
    let mut in_code = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => in_code = true,
            Event::End(TagEnd::CodeBlock) => in_code = false,
            Event::Text(text) if !in_code => current.push_str(&text),
            Event::Code(_) => current.push_str("code"),
            Event::SoftBreak => current.push(' '),
            Event::End(
                TagEnd::Paragraph | TagEnd::Item | TagEnd::Heading(_) | TagEnd::TableCell,
            ) => {
                sentences.extend(current.split(". ").map(str::to_owned));
                current.clear();
            }
            _ => (),
        }
    }
    sentences
}

fn rust_in(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_in(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}
