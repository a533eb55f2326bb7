//! Each file in `tests/stories` is a story, and a test of its own: what it proves, what happens, a
//! line, the timeline. `cargo test --test stories crash_loop` runs those whose name contains it.
//!
//! `UPDATE=1` rewrites what stands below the line; review the diff. A service has v1 as its active
//! release, receives 100 requests a second, and is probed every second. Every release answers
//! unless the story states otherwise.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/release_behaviour.rs"]
mod release_behaviour;
#[path = "support/simulated_host.rs"]
mod simulated_host;
#[path = "support/slo.rs"]
mod slo;
#[path = "support/story_runner.rs"]
mod story_runner;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use story_runner::StoryRunner;

const TIMELINE_LINES_MAX: usize = 25;
/// Characters of the text of an entry.
const TEXT_MAX: usize = 140;

fn main() -> ExitCode {
    let stories = story_files().into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        Trial::test(name, move || check_story(&path))
    });
    libtest_mimic::run(&Arguments::from_args(), stories.collect()).exit_code()
}

/// Plays a story and compares its timeline with the file.
fn check_story(path: &Path) -> Result<(), Failed> {
    let text = fs::read_to_string(path)?;
    let (story, want) = text.split_once("----\n").unwrap_or((&text, ""));
    assert!(story.starts_with("# "), "the first line states what the story proves");
    let got = play_story(story);
    assert!(got.lines().count() <= TIMELINE_LINES_MAX, "the timeline is too long:\n{got}");
    got.lines().for_each(check_length);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, format!("{story}----\n{got}"))?;
    } else if got != want {
        return Err(format!("the timeline is now:\n{got}UPDATE=1 writes it to the file").into());
    }
    Ok(())
}

/// Plays a story and returns its timeline.
/// A person reads the text of an entry on a terminal; a refusal is the answer to a command.
fn check_length(line: &str) {
    let text = line.split(" -> ").next().unwrap_or_default();
    let text = text.split_once(": ").map_or(text, |(_, text)| text);
    let is_entry = !line.starts_with('#') && !line.contains(" refused: ");
    assert!(!is_entry || text.len() <= TEXT_MAX, "{} characters: {text}", text.len());
}

fn play_story(story: &str) -> String {
    let mut runner = StoryRunner::new();
    for line in story.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (at, words) = line.split_once("s ").unwrap_or_else(|| panic!("no time: {line}"));
        let seconds: f64 = at.trim().parse().unwrap_or_else(|_| panic!("no number: {line}"));
        runner.advance((seconds * 1000.0) as u64);
        let words: Vec<&str> = words.split_whitespace().collect();
        assert!(runner.run_line(&words), "unknown event: {line}");
    }
    runner.timeline
}

fn story_files() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir("tests/stories")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}
