//! The source files, and the code in them: without comments, texts and unit tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file of this repository.
pub(crate) struct SourceFile {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The text with spaces for comments, string literals and the unit tests at its end.
    pub(crate) code: String,
}

impl SourceFile {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let is_unit_test =
            path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
        let end = if is_unit_test { Some(0) } else { text.find("#[cfg(test)]\nmod ") };
        let code = code_of(&text[..end.unwrap_or(text.len())]);
        Self { path: path.to_owned(), text, code }
    }

    /// The path as `src/proxy/mod.rs`.
    pub(crate) fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The module path of a file in src: `["proxy", "exchange", "handler"]`.
    pub(crate) fn module(&self) -> Vec<String> {
        let path = self.path.strip_prefix("src").unwrap().with_extension("");
        let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| !["mod", "lib", "main"].contains(&name.as_str())).collect()
    }
}

/// All Rust files below a folder, in order.
pub(crate) fn rust_files(folder: &str) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let hidden = ["node_modules", "target"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !hidden {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                found.push(SourceFile::read(&path));
            }
        }
    }
    assert!(!found.is_empty());
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Blanks comments and the contents of string literals; lines stay where they are.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = skipped_length(rest, code.chars().last());
        if length == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// The length of the comment or literal at the start of `rest`; 0 if there is none.
fn skipped_length(rest: &str, before: Option<char>) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if rest.starts_with('"') {
        return string_length(rest);
    }
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !is_word {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), hashes + 2);
        }
    }
    // A character, not a lifetime: 'x', '\n', '\u{1}'.
    if let Some(inner) = rest.strip_prefix('\'') {
        let first = inner.chars().next().map_or(0, char::len_utf8);
        if inner.starts_with('\\') {
            return until("'", 1 + first + 1);
        }
        if inner[first..].starts_with('\'') {
            return first + 2;
        }
    }
    0
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => (),
        }
    }
    rest.len()
}
