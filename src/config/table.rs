//! A TOML table, read key by key; what was never asked for is unknown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Code, Problem, Problems};

/// A table while it is read.
pub(super) struct Table<'a> {
    /// What it is, in messages: "a service", "the probe".
    noun: &'static str,
    at: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
}

/// Why a value can not be used.
#[derive(Debug, PartialEq)]
pub(super) struct Complaint {
    pub(super) code: Code,
    pub(super) what: String,
    pub(super) help: String,
    /// The part of the value that is meant, if not all of it.
    pub(super) at: Option<Range<usize>>,
}

impl Complaint {
    pub(super) fn new(code: Code, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, what: what.into(), help: help.into(), at: None }
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(noun: &'static str, at: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Self { noun, at, entries: Some(entries), asked: Vec::new() }
    }

    /// Where its name stands.
    pub(super) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// The value of `key`, or none if it is left out or a problem.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        kind: impl Fn(&DeValue<'a>) -> Result<T, Complaint>,
        problems: &mut Problems,
    ) -> Option<Spanned<T>> {
        self.ask(key);
        let value = self.entries?.get(key)?;
        match kind(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(complaint) => {
                let at = complaint.at.unwrap_or_else(|| value.span());
                let what = format!("`{key}` {}", complaint.what);
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
        kind: impl Fn(&DeValue<'a>) -> Result<T, Complaint>,
        problems: &mut Problems,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            let what = format!("`{key}` is missing from {}", self.noun);
            let help = format!("write {key} = {example}");
            problems.push(Problem::error(Code::Missing, self.at(), what).help(help));
        }
        self.read(key, kind, problems)
    }

    /// Whether something is written there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// The table under `key`; an empty one if it is left out. `header` is how it is written.
    pub(super) fn table(
        &mut self,
        key: &'static str,
        noun: &'static str,
        header: &str,
        problems: &mut Problems,
    ) -> Self {
        self.ask(key);
        let found = self.entries.and_then(|entries| entries.get_key_value(key));
        let Some((name, value)) = found else {
            return Self { noun, at: self.at(), entries: None, asked: Vec::new() };
        };
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            let what = format!("`{key}` is {}, not a table", kind_of(value.get_ref()));
            let help = format!("write {header}, and the settings below it");
            problems.push(Problem::error(Code::WrongType, value.span(), what).help(help));
        }
        Self { noun, at: name.span(), entries, asked: Vec::new() }
    }

    /// What the operator named, in the order of the names.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)>
    {
        self.entries.into_iter().flatten()
    }

    fn ask(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    /// Everything was asked for: the rest is unknown.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, _) in self.entries() {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let what = format!("`{}` is not a setting of {}", brief(name), self.noun);
            // Once nothing more is kept, the search for what was meant is wasted time.
            let meant = if problems.full() { None } else { near(name, &self.asked) };
            let help = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", self.asked.join(", ")),
            };
            problems.push(Problem::error(Code::UnknownKey, key.span(), what).help(help));
        }
    }
}

/// The type of a value, as said in a sentence.
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
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
pub(super) fn near<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
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
pub(super) fn brief(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() { format!("{shown}...") } else { shown }
}
