//! A TOML table that is read key by key. A key that was never read is unknown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, ProblemCode, Problems, shorten};
use crate::config::schema;
use crate::config::value::{ValueError, type_name};
use crate::model::closest_match;

/// A table while it is read.
pub(super) struct TomlTable<'a> {
    /// Its name in messages: "a service", "the probe".
    label: &'static str,
    span: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    known_keys: Vec<&'static str>,
}

impl<'a> TomlTable<'a> {
    pub(super) fn new(label: &'static str, span: Range<usize>, entries: &'a DeTable<'a>) -> Self {
        Self { label, span, entries: Some(entries), known_keys: Vec::new() }
    }

    /// The span of its name.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Reads the value of `key`; none if it is missing or wrong.
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
            Err(error) => {
                let at = error.span.unwrap_or_else(|| value.span());
                let what = format!("`{key}` {}", error.message);
                problems.push(Problem::error(error.code, at, what).help(error.help));
                None
            }
        }
    }

    /// Reads the value of `key`, which must be there; `example` is a valid value.
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

    /// Whether the table has the key, with a right or a wrong value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// The table under `key`; an empty one if it is missing. `header` is its syntax.
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

    /// Keys that the operator chose, in alphabetical order.
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

    /// Reports every key that was not read.
    pub(super) fn reject_unknown_keys(self, problems: &mut Problems) {
        for (key, _) in self.entries() {
            let name = key.get_ref().as_ref();
            if self.known_keys.contains(&name) {
                continue;
            }
            let what = format!("`{}` is not a setting of {}", shorten(name), self.label);
            let help = self.help_for_unknown(name, problems);
            problems.push(Problem::error(ProblemCode::UnknownKey, key.span(), what).help(help));
        }
    }

    /// The table that has such a setting, or a similar setting of this table.
    fn help_for_unknown(&self, name: &str, problems: &Problems) -> String {
        let tables = schema::tables_of(name);
        if !tables.is_empty() {
            let tables = tables.join(" or ");
            let has_part = |key: &&&str| key.split('_').any(|part| part == name);
            let plural_of = |key: &&&str| name.strip_suffix('s') == Some(**key);
            let meant = |key: &&&str| has_part(key) || plural_of(key);
            return match self.known_keys.iter().find(meant) {
                Some(meant) => format!("did you mean `{meant}`? `{name}` belongs to {tables}"),
                None => format!("it belongs to {tables}; move it there"),
            };
        }
        // When no more problems are kept, a suggestion is wasted time.
        let meant = if problems.is_full() { None } else { closest_match(name, &self.known_keys) };
        match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known settings: {}", self.known_keys.join(", ")),
        }
    }
}
