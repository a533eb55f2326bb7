//! Who imports whom: the paths that a file names, resolved to the files that define them.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::SourceFile;

/// Re-exports that a path may go through.
const REEXPORTS_MAX: u32 = 8;

/// The module paths of all files in src, and what each module re-exports.
pub(crate) struct Modules<'a> {
    files: BTreeMap<Vec<String>, &'a SourceFile>,
    reexports: BTreeMap<Vec<String>, BTreeMap<String, Vec<String>>>,
}

/// The files that each file imports.
pub(crate) type ImportGraph = BTreeMap<String, BTreeSet<String>>;

impl<'a> Modules<'a> {
    pub(crate) fn new(sources: &'a [SourceFile]) -> Self {
        let files: BTreeMap<_, _> = sources.iter().map(|it| (it.module(), it)).collect();
        let mut modules = Self { files, reexports: BTreeMap::new() };
        for file in sources {
            let at = file.module();
            let mut names = BTreeMap::new();
            for path in use_statements(&file.code).into_iter().filter(|it| it.is_reexport) {
                let name = path.alias.clone().or_else(|| path.segments.last().cloned());
                if let (Some(name), Some(target)) = (name, modules.absolute(&at, &path.segments)) {
                    names.insert(name, target);
                }
            }
            modules.reexports.insert(at, names);
        }
        modules
    }

    /// The import graph. A `pub use` inside a room is no import of its own: who imports the name
    /// imports the file that defines it. An import from another room counts as one of its `mod.rs`.
    pub(crate) fn graph(&self) -> ImportGraph {
        let mut graph = ImportGraph::new();
        for (at, file) in &self.files {
            let targets = graph.entry(file.name().to_owned()).or_default();
            let statements = use_statements(&file.code).into_iter();
            let statements = statements.map(|it| (it.segments, it.is_reexport));
            let inline = inline_paths(&file.code).into_iter().map(|path| (path, false));
            for (path, is_reexport) in statements.chain(inline) {
                let Some(path) = self.absolute(at, &path) else { continue };
                let is_own_room = path.first() == at.first();
                if is_reexport && is_own_room {
                    continue;
                }
                let depth = if is_own_room { 0 } else { REEXPORTS_MAX };
                let target = self.resolve(&path, depth);
                targets.extend(target.filter(|target| target != file.name()));
            }
        }
        graph
    }

    /// A path as seen from the crate's root; none if it leads out of the crate.
    fn absolute(&self, at: &[String], path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => at.to_vec(),
            "super" => at[..at.len().checked_sub(1)?].to_vec(),
            child => {
                let child = [at, &[child.to_owned()]].concat();
                self.files.contains_key(&child).then_some(())?;
                child
            }
        };
        let mut rest = rest;
        while let Some((first, more)) = rest.split_first()
            && first == "super"
        {
            base.pop()?;
            rest = more;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The file that defines what a path names.
    fn resolve(&self, path: &[String], depth: u32) -> Option<String> {
        let length = (1..=path.len()).rev().find(|it| self.files.contains_key(&path[..*it]))?;
        let (module, rest) = path.split_at(length);
        let reexport = rest.first().and_then(|name| self.reexports.get(module)?.get(name));
        match reexport {
            Some(target) if depth < REEXPORTS_MAX => {
                self.resolve(&[target, &rest[1..]].concat(), depth + 1)
            }
            _ => self.files.get(module).map(|file| file.name().to_owned()),
        }
    }
}

/// The files that import themselves by way of others for which `within` holds.
pub(crate) fn files_in_circles(
    graph: &ImportGraph,
    within: impl Fn(&str, &str) -> bool,
) -> BTreeSet<String> {
    let is_in_circle = |start: &String| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(file) = next.pop() {
            for target in graph.get(file).into_iter().flatten().filter(|it| within(start, it)) {
                if seen.insert(target) {
                    next.push(target);
                }
            }
        }
        seen.contains(start)
    };
    graph.keys().filter(|file| is_in_circle(file)).cloned().collect()
}

/// One path of a `use` statement.
#[derive(Debug, PartialEq)]
pub(crate) struct UsePath {
    pub(crate) segments: Vec<String>,
    alias: Option<String>,
    is_reexport: bool,
}

/// The paths of all `use` statements.
pub(crate) fn use_statements(code: &str) -> Vec<UsePath> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |it| it + 1);
        let before = code[line..at].trim();
        let is_end_of_a_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_end_of_a_word || !(before.is_empty() || before.starts_with("pub")) {
            continue;
        }
        let statement = code[at + 4..].split(';').next().unwrap_or_default();
        for path in expand(statement) {
            let (path, alias) = match path.split_once(" as ") {
                Some((path, alias)) => (path.to_owned(), Some(alias.trim().to_owned())),
                None => (path, None),
            };
            let mut segments: Vec<_> =
                path.split("::").map(|name| name.trim().to_owned()).collect();
            segments.retain(|name| !name.is_empty());
            if segments.last().is_some_and(|it| it == "self") && segments.len() > 1 {
                segments.pop();
            }
            found.push(UsePath { segments, alias, is_reexport: !before.is_empty() });
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d` and `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, list)) = tree.split_once('{') else {
        return vec![tree.to_owned()];
    };
    let list = list.rsplit_once('}').map_or(list, |(list, _)| list);
    let (mut depth, mut item, mut items) = (0_u32, String::new(), Vec::new());
    for c in list.chars() {
        match c {
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {
                depth = depth + u32::from(c == '{') - u32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    items.retain(|item| !item.trim().is_empty());
    items.iter().flat_map(|item| expand(item)).map(|item| format!("{prefix}{item}")).collect()
}

/// Paths from `crate::` in the middle of code; not those of `pub(in crate::proxy)`.
fn inline_paths(code: &str) -> Vec<Vec<String>> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with("(in ")) {
        let path = code[at..].split(|c| !is_name(c)).next().unwrap_or_default();
        // `use crate::room::{...}` names what is in the braces.
        if path.ends_with("::") {
            continue;
        }
        let names = path.split("::").filter(|name| !name.is_empty());
        found.push(names.map(str::to_owned).collect());
    }
    found
}
