//! The names that operators give to services, slots and channels.

use toml::Spanned;

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};

/// Longest name, in characters.
const NAME_MAX: usize = 32;

/// Checks the name of `owner`, such as "a service".
pub(super) fn check_name(owner: &str, name: &Spanned<String>, problems: &mut Problems) {
    let text = name.get_ref();
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    if (1..=NAME_MAX).contains(&text.len()) && text.chars().all(plain) {
        return;
    }
    let shown = shorten(text).escape_debug().to_string();
    let what = format!("\"{shown}\" is not a valid name of {owner}");
    let help = format!("write 1 to {NAME_MAX} lower-case letters, digits and hyphens");
    problems.push(Problem::error(ProblemCode::BadName, name.span(), what).help(help));
}
