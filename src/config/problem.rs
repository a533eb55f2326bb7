//! What is wrong in a configuration: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// More than these are counted, not kept.
const KEPT_MAX: usize = 50;
/// Of a line that is longer, only the part around the problem is shown.
const SHOWN_MAX: usize = 240;

/// Something an operator should change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the daemon refuses to run with it.
    pub weight: Weight,
    /// The kind of problem; its name never changes.
    pub code: Code,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
    /// Where it stands in the text, in bytes; none if the file itself is the problem.
    pub at: Option<Range<usize>>,
    /// Another place that has part in it, and which part.
    pub also: Option<(Range<usize>, String)>,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The daemon does not run with it.
    Error,
    /// The daemon runs, but hardly as intended.
    Warning,
}

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The file can not be read.
    Unreadable,
    /// The file is larger than any configuration should be.
    TooLarge,
    /// The file is not text.
    NotText,
    /// The text is not TOML.
    Syntax,
    /// A setting that does not exist.
    UnknownKey,
    /// A value of another type than the setting takes.
    WrongType,
    /// A setting without which nothing works.
    Missing,
    /// A value that can not be understood.
    BadValue,
    /// A value that is understood, but too small or too large.
    OutOfRange,
    /// A name that can not be used.
    BadName,
    /// Two settings that can not both be meant.
    Contradiction,
    /// One address for two things.
    AddressTwice,
    /// A `{placeholder}` that is never filled in.
    UnknownPlaceholder,
    /// A threshold that can never be reached.
    NeverTrips,
    /// A release that can never become ready.
    NeverReady,
    /// A rollback could take longer than it may.
    TooSlow,
    /// Clients would be refused.
    RefusesClients,
    /// The release would be accepted on too little evidence.
    WeakEvidence,
    /// Healthy releases would be rolled back.
    FalseAlarms,
}

/// Every problem of one file, and how to show them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    file: String,
    text: String,
    list: Vec<Problem>,
    left_out: usize,
}

impl Problem {
    /// A problem at `at`, with which the daemon does not run.
    pub(super) fn error(code: Code, at: Range<usize>, what: impl Into<String>) -> Self {
        Self {
            weight: Weight::Error,
            code,
            what: what.into(),
            help: String::new(),
            at: Some(at),
            also: None,
        }
    }

    /// A problem at `at`, with which the daemon runs.
    pub(super) fn warning(code: Code, at: Range<usize>, what: impl Into<String>) -> Self {
        Self { weight: Weight::Warning, ..Self::error(code, at, what) }
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Another place that has part in it.
    pub(super) fn also(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((at, label.into()));
        self
    }
}

impl Code {
    /// Its name, for people to search for and for scripts to match.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too-large",
            Self::NotText => "not-text",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::WrongType => "wrong-type",
            Self::Missing => "missing",
            Self::BadValue => "bad-value",
            Self::OutOfRange => "out-of-range",
            Self::BadName => "bad-name",
            Self::Contradiction => "contradiction",
            Self::AddressTwice => "address-twice",
            Self::UnknownPlaceholder => "unknown-placeholder",
            Self::NeverTrips => "never-trips",
            Self::NeverReady => "never-ready",
            Self::TooSlow => "too-slow",
            Self::RefusesClients => "refuses-clients",
            Self::WeakEvidence => "weak-evidence",
            Self::FalseAlarms => "false-alarms",
        }
    }
}

impl Problems {
    /// Nothing is wrong yet in `text`, read from `file`.
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), ..Self::default() }
    }

    /// The file itself is the problem.
    pub(super) fn of_file(file: &str, code: Code, what: String, help: &str) -> Self {
        let mut problems = Self::new(file, "");
        problems.push(Problem { at: None, ..Problem::error(code, 0..0, what).help(help) });
        problems
    }

    /// One more.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.kept(problem.weight) < KEPT_MAX {
            self.list.push(problem);
        } else {
            self.left_out += 1;
        }
    }

    /// Whether further errors are only counted.
    pub(super) fn full(&self) -> bool {
        self.kept(Weight::Error) >= KEPT_MAX
    }

    fn kept(&self, weight: Weight) -> usize {
        self.list.iter().filter(|it| it.weight == weight).count()
    }

    /// In the order of the text.
    pub(super) fn sort(&mut self) {
        self.list.sort_by_key(|problem| problem.at.as_ref().map_or(0, |at| at.start));
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether the daemon refuses to run.
    pub fn fatal(&self) -> bool {
        self.list.iter().any(|problem| problem.weight == Weight::Error)
    }

    /// As [`fmt::Display`], with colours for a terminal.
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut shown: Vec<_> =
            self.list.iter().map(|problem| self.show(problem, renderer)).collect();
        if self.left_out > 0 {
            shown.push(format!("... and {} problems more", self.left_out));
        }
        shown.join("\n\n")
    }

    fn show(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.weight {
            Weight::Error => Level::ERROR,
            Weight::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.what.as_str()).id(problem.code.name());
        let mut group = Group::with_title(title);
        group = match &problem.at {
            Some(at) => group.element(self.snippet(at, problem.also.as_ref())),
            None => group.element(Origin::path(self.file.as_str())),
        };
        if !problem.help.is_empty() {
            group = group.element(Level::HELP.message(problem.help.as_str()));
        }
        renderer.render(&[group])
    }

    fn snippet<'a>(
        &'a self,
        at: &Range<usize>,
        also: Option<&'a (Range<usize>, String)>,
    ) -> Snippet<'a, Annotation<'a>> {
        let (from, to) = (self.line(at.start), self.line(at.end));
        let long = to.end - from.start > SHOWN_MAX && from == to;
        // The columns would be wrong in a cut line; but a line this long has worse problems.
        let seen = if long { self.around(at, &from) } else { 0..self.text.len() };
        let source = self.text.get(seen.clone()).unwrap_or_default();
        let start = self.text.get(..seen.start).unwrap_or_default().matches('\n').count() + 1;
        let mark = self.mark(at, &seen);
        let mut snippet = Snippet::source(source)
            .line_start(start)
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(mark));
        if let Some((at, label)) = also.filter(|_| !long) {
            let mark = self.mark(at, &seen);
            snippet = snippet.annotation(AnnotationKind::Context.span(mark).label(label.as_str()));
        }
        snippet
    }

    /// The part of a long line that is shown.
    fn around(&self, at: &Range<usize>, line: &Range<usize>) -> Range<usize> {
        let from = self.text.floor_char_boundary(at.start.saturating_sub(SHOWN_MAX / 2));
        let to = self.text.floor_char_boundary((at.start + SHOWN_MAX / 2).min(self.text.len()));
        from.max(line.start)..to.min(line.end)
    }

    /// The line that holds the byte at `at`, without its end.
    fn line(&self, at: usize) -> Range<usize> {
        let at = self.text.floor_char_boundary(at);
        let (before, after) = self.text.split_at(at);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(self.text.len(), |newline| at + newline);
        start..end
    }

    /// What is underlined: inside of `seen`, and never more than one line.
    fn mark(&self, at: &Range<usize>, seen: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(at.start).clamp(seen.start, seen.end);
        let end = self.text.floor_char_boundary(at.end).min(self.line(start).end);
        let end = end.clamp(start, seen.end);
        start - seen.start..end - seen.start
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Problems {}
