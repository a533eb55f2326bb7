//! A TOML table, read key by key; what was never asked for is unknown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, ProblemCode, Problems};

/// A table while it is read.
pub(super) struct TomlTable<'a> {
    /// What it is, in messages: "a service", "the probe".
    label: &'static str,
    span: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    known_keys: Vec<&'static str>,
}

/// Why a value can not be used.
#[derive(Debug, PartialEq)]
pub(super) struct ValueError {
    pub(super) code: ProblemCode,
    pub(super) message: String,
    pub(super) help: String,
    /// The part of the value that is meant, if not all of it.
    pub(super) span: Option<Range<usize>>,
}

impl ValueError {
    pub(super) fn new(code: ProblemCode, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: what.into(), help: help.into(), span: None }
    }
}

impl<'a> TomlTable<'a> {
    pub(super) fn new(label: &'static str, span: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Self { label, span, entries: Some(entries), known_keys: Vec::new() }
    }

    /// Where its name stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of `key`, or none if it is left out or a problem.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&DeValue<'a>) -> Result<T, ValueError>,
        problems: &mut Problems,
    ) -> Option<Spanned<T>> {
        self.mark_known(key);
        let value = self.entries?.get(key)?;
        match parse(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(complaint) => {
                let at = complaint.span.unwrap_or_else(|| value.span());
                let what = format!("`{key}` {}", complaint.message);
                problems.push(Problem::error(complaint.code, at, what).help(complaint.help));
                None
            }
        }
    }

    /// As [`Self::read`], but leaving it out is a problem; `example` is what to write.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&DeValue<'a>) -> Result<T, ValueError>,
        problems: &mut Problems,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            let what = format!("`{key}` is missing from {}", self.label);
            let help = format!("write {key} = {example}");
            problems.push(Problem::error(ProblemCode::Missing, self.span(), what).help(help));
        }
        self.read(key, parse, problems)
    }

    /// Whether something is written there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// The table under `key`; an empty one if it is left out. `header` is how it is written.
    pub(super) fn subtable(
        &mut self,
        key: &'static str,
        label: &'static str,
        header: &str,
        problems: &mut Problems,
    ) -> Self {
        self.mark_known(key);
        let found = self.entries.and_then(|entries| entries.get_key_value(key));
        let Some((name, value)) = found else {
            return Self { label, span: self.span(), entries: None, known_keys: Vec::new() };
        };
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            let what = format!("`{key}` is {}, not a table", type_name(value.get_ref()));
            let help = format!("write {header}, and the settings below it");
            problems.push(Problem::error(ProblemCode::WrongType, value.span(), what).help(help));
        }
        Self { label, span: name.span(), entries, known_keys: Vec::new() }
    }

    /// What the operator named, in the order of the names.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)>
    {
        self.entries.into_iter().flatten()
    }

    fn mark_known(&mut self, key: &'static str) {
        if !self.known_keys.contains(&key) {
            self.known_keys.push(key);
        }
    }

    /// Everything was asked for: the rest is unknown.
    pub(super) fn reject_unknown_keys(self, problems: &mut Problems) {
        for (key, _) in self.entries() {
            let name = key.get_ref().as_ref();
            if self.known_keys.contains(&name) {
                continue;
            }
            let what = format!("`{}` is not a setting of {}", shorten(name), self.label);
            // Once nothing more is kept, the search for what was meant is wasted time.
            let suggestion =
                if problems.is_full() { None } else { closest_match(name, &self.known_keys) };
            let help = match suggestion {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", self.known_keys.join(", ")),
            };
            problems.push(Problem::error(ProblemCode::UnknownKey, key.span(), what).help(help));
        }
    }
}

/// The type of a value, as said in a sentence.
pub(super) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known name that was probably meant.
pub(super) fn closest_match<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // The distance takes time with the product of the lengths, and no setting is this long.
    if name.len() > 40 {
        return None;
    }
    known
        .iter()
        .map(|&it| (strsim::damerau_levenshtein(name, it), it))
        .filter(|&(distance, it)| distance <= 1 + it.len() / 4)
        .min()
        .map(|(_, it)| it)
}

/// A text short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() { format!("{shown}...") } else { shown }
}
