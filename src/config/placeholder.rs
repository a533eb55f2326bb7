//! The placeholders `{port}`, `{slot}`, `{version}` and `{artifact}` in commands and URLs.

use std::ops::Range;

use toml::Spanned;

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::model::closest_match;

/// Replaced in the command of a release.
pub(super) const START_PLACEHOLDERS: [&str; 4] = ["version", "artifact", "slot", "port"];

/// Replaced in the command of a probe, and in the URL of a scrape.
pub(super) const PROBE_PLACEHOLDERS: [&str; 3] = ["port", "slot", "version"];

/// The arguments of a command, which may contain the `known` placeholders.
pub(super) fn argv(
    name: &str,
    command: &Spanned<Vec<Spanned<String>>>,
    known: &[&'static str],
    problems: &mut Problems,
) -> Vec<String> {
    let words = command.get_ref();
    if words.first().is_none_or(|program| program.get_ref().trim().is_empty()) {
        let what = format!("`{name}` has no program");
        let help = "write the program, then each argument: [\"/opt/x/server\", \"--fast\"]";
        problems.push(Problem::error(ProblemCode::BadValue, command.span(), what).help(help));
    }
    for word in words {
        check_placeholders(word.get_ref(), word.span(), known, problems);
    }
    words.iter().map(|word| word.get_ref().clone()).collect()
}

/// Reports every placeholder in a text that is not known.
pub(super) fn check_placeholders(
    text: &str,
    at: Range<usize>,
    known: &[&'static str],
    problems: &mut Problems,
) {
    for placeholder in placeholders(text).filter(|it| !known.contains(it)) {
        problems.push(unknown_placeholder(placeholder, at.clone(), known));
    }
}

fn unknown_placeholder(placeholder: &str, at: Range<usize>, known: &[&'static str]) -> Problem {
    let list = known.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
    let shown = shorten(placeholder);
    match closest_match(placeholder, known) {
        Some(suggestion) => {
            let what = format!("{{{shown}}} is never replaced");
            Problem::error(ProblemCode::UnknownPlaceholder, at, what)
                .help(format!("did you mean {{{suggestion}}}?"))
        }
        // A script can contain braces of its own.
        None => {
            let what = format!("{{{shown}}} is not replaced: the program gets it unchanged");
            Problem::warning(ProblemCode::UnknownPlaceholder, at, what)
                .help(format!("only {list} are replaced"))
        }
    }
}

/// The names between braces: letters, digits, `_` and `-`.
pub(super) fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let (name, _) = rest.split_once('}')?;
        let plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
        (!name.is_empty() && name.chars().all(plain)).then_some(name)
    })
}
