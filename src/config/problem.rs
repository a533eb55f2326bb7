//! The problems of a configuration: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Problems of each level that are kept; further ones are counted.
const PROBLEMS_MAX: usize = 50;
/// Of a longer line, only the part around the problem is shown.
const EXCERPT_MAX: usize = 240;

/// Something that the operator should change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the daemon refuses to run with it.
    pub level: ProblemLevel,
    /// The kind of problem.
    pub code: ProblemCode,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Its bytes in the text; none if the file itself is the problem.
    pub span: Option<Range<usize>>,
    /// Another part of the text that causes it.
    pub related: Option<Related>,
}

/// A part of the text that causes a problem elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// What it is.
    pub label: String,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemLevel {
    /// The daemon refuses to run.
    Error,
    /// The daemon runs, but probably not as intended.
    Warning,
}

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemCode {
    /// The file cannot be read.
    Unreadable,
    /// The file is larger than any configuration should be.
    TooLarge,
    /// The file is not UTF-8.
    NotUtf8,
    /// The text is not TOML.
    Syntax,
    /// A setting that does not exist.
    UnknownKey,
    /// A value of the wrong type.
    WrongType,
    /// A required setting is missing.
    Missing,
    /// A value that cannot be parsed.
    BadValue,
    /// A value that is too small or too large.
    OutOfRange,
    /// A name that is not allowed.
    BadName,
    /// Two settings that exclude each other.
    Contradiction,
    /// One address for two things.
    DuplicateAddress,
    /// A `{placeholder}` that is never replaced.
    UnknownPlaceholder,
    /// A threshold that no traffic can reach.
    UnreachableThreshold,
    /// A release that can never become ready.
    NeverReady,
    /// A rollback could take longer than it may.
    TooSlow,
    /// The proxy would refuse clients.
    RefusesClients,
    /// Releases would be accepted on too little evidence.
    WeakEvidence,
    /// Healthy releases would be rolled back.
    FalseAlarms,
    /// Every release would run the same command.
    SameCommand,
}

/// Every problem of one file, and how to show them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    file: String,
    text: String,
    problems: Vec<Problem>,
    omitted: usize,
}

/// A problem as data, for `check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// The file.
    pub file: String,
    /// `error` or `warning`.
    pub level: &'static str,
    /// The kind of problem.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Where; none if the file itself is the problem.
    #[serde(flatten)]
    pub at: Option<ProblemLocation>,
    /// Another part of the text that causes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<RelatedReport>,
}

/// A part of a text. Lines and columns count from 1; the end is behind the last character.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemLocation {
    /// The first line.
    pub line: usize,
    /// The first character in it.
    pub column: usize,
    /// The last line.
    pub end_line: usize,
    /// Behind the last character in it.
    pub end_column: usize,
}

/// A part of the text that causes a problem elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelatedReport {
    /// What it is.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub at: ProblemLocation,
}

impl Problem {
    /// An error at a span.
    pub(super) fn error(code: ProblemCode, at: Range<usize>, what: impl Into<String>) -> Self {
        Self {
            level: ProblemLevel::Error,
            code,
            message: what.into(),
            help: String::new(),
            span: Some(at),
            related: None,
        }
    }

    /// A warning at a span.
    pub(super) fn warning(code: ProblemCode, at: Range<usize>, what: impl Into<String>) -> Self {
        Self { level: ProblemLevel::Warning, ..Self::error(code, at, what) }
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Another part of the text that causes it.
    pub(super) fn related(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some(Related { span: at, label: label.into() });
        self
    }
}

impl ProblemCode {
    /// Its name, for searches and scripts. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too-large",
            Self::NotUtf8 => "not-utf8",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::WrongType => "wrong-type",
            Self::Missing => "missing",
            Self::BadValue => "bad-value",
            Self::OutOfRange => "out-of-range",
            Self::BadName => "bad-name",
            Self::Contradiction => "contradiction",
            Self::DuplicateAddress => "duplicate-address",
            Self::UnknownPlaceholder => "unknown-placeholder",
            Self::UnreachableThreshold => "unreachable-threshold",
            Self::NeverReady => "never-ready",
            Self::TooSlow => "too-slow",
            Self::RefusesClients => "refuses-clients",
            Self::WeakEvidence => "weak-evidence",
            Self::FalseAlarms => "false-alarms",
            Self::SameCommand => "same-command",
        }
    }
}

impl Problems {
    /// No problems yet in `text`, which was read from `file`.
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), ..Self::default() }
    }

    /// One problem of the file itself.
    pub(super) fn of_file(file: &str, code: ProblemCode, what: String, help: &str) -> Self {
        let mut problems = Self::new(file, "");
        problems.push(Problem { span: None, ..Problem::error(code, 0..0, what).help(help) });
        problems
    }

    /// Adds a problem, or counts it.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.count(problem.level) < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    /// Whether further errors are only counted, not kept.
    pub(super) fn is_full(&self) -> bool {
        self.count(ProblemLevel::Error) >= PROBLEMS_MAX
    }

    fn count(&self, level: ProblemLevel) -> usize {
        self.problems.iter().filter(|it| it.level == level).count()
    }

    /// Sorts them by their place in the text.
    pub(super) fn sort(&mut self) {
        self.problems.sort_by_key(|problem| problem.span.as_ref().map_or(0, |at| at.start));
    }

    /// Problems that were counted and not kept.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether the daemon refuses to run.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.level == ProblemLevel::Error)
    }

    /// The problems as data, in the order of the text.
    pub fn reports(&self) -> Vec<ProblemReport> {
        let location = |span: &Range<usize>| {
            let ((line, column), (end_line, end_column)) =
                (self.position(span.start), self.position(span.end));
            ProblemLocation { line, column, end_line, end_column }
        };
        let report = |problem: &Problem| ProblemReport {
            file: self.file.clone(),
            level: match problem.level {
                ProblemLevel::Error => "error",
                ProblemLevel::Warning => "warning",
            },
            code: problem.code.as_str(),
            message: problem.message.clone(),
            help: problem.help.clone(),
            at: problem.span.as_ref().map(location),
            related: problem.related.as_ref().map(|related| RelatedReport {
                message: related.label.clone(),
                at: location(&related.span),
            }),
        };
        self.problems.iter().map(report).collect()
    }

    /// The line and the column of a byte, both from 1; columns count characters.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..self.text.floor_char_boundary(at)).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.chars().count() + 1)
    }

    /// As [`fmt::Display`], with colours for a terminal.
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut rendered: Vec<_> =
            self.problems.iter().map(|problem| self.render_problem(problem, renderer)).collect();
        if self.omitted > 0 {
            rendered.push(format!("... and {} more problems", self.omitted));
        }
        rendered.join("\n\n")
    }

    fn render_problem(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.level {
            ProblemLevel::Error => Level::ERROR,
            ProblemLevel::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str()).id(problem.code.as_str());
        let mut group = Group::with_title(title);
        group = match &problem.span {
            Some(at) => group.element(self.snippet(at, problem.related.as_ref())),
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
        related: Option<&'a Related>,
    ) -> Snippet<'a, Annotation<'a>> {
        let (first_line, last_line) = (self.line_span(at.start), self.line_span(at.end));
        let long = last_line.end - first_line.start > EXCERPT_MAX && first_line == last_line;
        // An excerpt of a long line has wrong columns. Such lines are rare.
        let visible = if long { self.excerpt_span(at, &first_line) } else { 0..self.text.len() };
        let source = self.text.get(visible.clone()).unwrap_or_default();
        let start = self.text.get(..visible.start).unwrap_or_default().matches('\n').count() + 1;
        let underlined = self.underline(at, &visible);
        let mut snippet = Snippet::source(source)
            .line_start(start)
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(underlined));
        if let Some(Related { span, label }) = related.filter(|_| !long) {
            let underlined = self.underline(span, &visible);
            snippet =
                snippet.annotation(AnnotationKind::Context.span(underlined).label(label.as_str()));
        }
        snippet
    }

    /// The part of a long line that is shown.
    fn excerpt_span(&self, at: &Range<usize>, line: &Range<usize>) -> Range<usize> {
        let from = self.text.floor_char_boundary(at.start.saturating_sub(EXCERPT_MAX / 2));
        let to = self.text.floor_char_boundary((at.start + EXCERPT_MAX / 2).min(self.text.len()));
        from.max(line.start)..to.min(line.end)
    }

    /// The line that contains a byte, without its end.
    fn line_span(&self, at: usize) -> Range<usize> {
        let at = self.text.floor_char_boundary(at);
        let (before, after) = self.text.split_at(at);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(self.text.len(), |newline| at + newline);
        start..end
    }

    /// What is underlined: inside `visible`, and at most one line.
    fn underline(&self, at: &Range<usize>, visible: &Range<usize>) -> Range<usize> {
        let start = self.text.floor_char_boundary(at.start).clamp(visible.start, visible.end);
        let end = self.text.floor_char_boundary(at.end).min(self.line_span(start).end);
        let end = end.clamp(start, visible.end);
        start - visible.start..end - visible.start
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Problems {}

/// Shortens a text for a message.
pub(super) fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() { format!("{shown}...") } else { shown }
}
