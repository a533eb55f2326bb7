//! Each file in `tests/stories` is a story: what it proves, what happened, a line, the timeline.
//!
//! `UPDATE=1` rewrites what stands below the line; review the diff. A service has v1 as its active
//! release, is asked 100 requests a second, and is probed every second. Everybody answers unless
//! the story says otherwise.
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

use story_runner::StoryRunner;

const TIMELINE_LINES_MAX: usize = 25;

#[test]
fn all_stories() {
    let mut wrong = Vec::new();
    for path in story_files() {
        let text = fs::read_to_string(&path).unwrap();
        let (story, want) = text.split_once("----\n").unwrap_or((&text, ""));
        assert!(story.starts_with("# "), "{}: say what it proves", path.display());
        let got = play_story(story, &path);
        assert!(got.lines().count() <= TIMELINE_LINES_MAX, "{}: too long:\n{got}", path.display());
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{story}----\n{got}")).unwrap();
        } else if got != want {
            wrong.push(format!("{} is now:\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 writes them down", wrong.join("\n"));
}

/// Plays a story and returns its timeline.
fn play_story(story: &str, path: &Path) -> String {
    let mut stage = StoryRunner::new();
    for line in story.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (at, words) = line.split_once("s ").unwrap();
        let seconds: f64 =
            at.trim().parse().unwrap_or_else(|_| panic!("{}: {line}", path.display()));
        stage.advance((seconds * 1000.0) as u64);
        let words: Vec<&str> = words.split_whitespace().collect();
        assert!(stage.run_line(&words), "{}: what does this mean? {line}", path.display());
    }
    stage.timeline
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
