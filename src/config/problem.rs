//! What is wrong in a configuration: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// More than these are counted, not kept.
const PROBLEMS_MAX: usize = 50;
/// Of a line that is longer, only the part around the problem is shown.
const EXCERPT_MAX: usize = 240;

/// Something an operator should change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the daemon refuses to run with it.
    pub level: ProblemLevel,
    /// The kind of problem; its name never changes.
    pub code: ProblemCode,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Where it stands in the text, in bytes; none if the file itself is the problem.
    pub span: Option<Range<usize>>,
    /// Another place that has part in it, and which part.
    pub related: Option<(Range<usize>, String)>,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemLevel {
    /// The daemon does not run with it.
    Error,
    /// The daemon runs, but hardly as intended.
    Warning,
}

/// A kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemCode {
    /// The file can not be read.
    Unreadable,
    /// The file is larger than any configuration should be.
    TooLarge,
    /// The file is not text.
    NotUtf8,
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
    DuplicateAddress,
    /// A `{placeholder}` that is never filled in.
    UnknownPlaceholder,
    /// A threshold that can never be reached.
    UnreachableThreshold,
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
    problems: Vec<Problem>,
    omitted: usize,
}

impl Problem {
    /// A problem at `span`, with which the daemon does not run.
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

    /// A problem at `span`, with which the daemon runs.
    pub(super) fn warning(code: ProblemCode, at: Range<usize>, what: impl Into<String>) -> Self {
        Self { level: ProblemLevel::Warning, ..Self::error(code, at, what) }
    }

    /// What to write instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Another place that has part in it.
    pub(super) fn related(mut self, at: Range<usize>, label: impl Into<String>) -> Self {
        self.related = Some((at, label.into()));
        self
    }
}

impl ProblemCode {
    /// Its name, for people to search for and for scripts to match.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too-large",
            Self::NotUtf8 => "not-text",
            Self::Syntax => "syntax",
            Self::UnknownKey => "unknown-key",
            Self::WrongType => "wrong-type",
            Self::Missing => "missing",
            Self::BadValue => "bad-value",
            Self::OutOfRange => "out-of-range",
            Self::BadName => "bad-name",
            Self::Contradiction => "contradiction",
            Self::DuplicateAddress => "address-twice",
            Self::UnknownPlaceholder => "unknown-placeholder",
            Self::UnreachableThreshold => "never-trips",
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
    pub(super) fn of_file(file: &str, code: ProblemCode, what: String, help: &str) -> Self {
        let mut problems = Self::new(file, "");
        problems.push(Problem { span: None, ..Problem::error(code, 0..0, what).help(help) });
        problems
    }

    /// One more.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.count(problem.level) < PROBLEMS_MAX {
            self.problems.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    /// Whether further errors are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.count(ProblemLevel::Error) >= PROBLEMS_MAX
    }

    fn count(&self, level: ProblemLevel) -> usize {
        self.problems.iter().filter(|it| it.level == level).count()
    }

    /// In the order of the text.
    pub(super) fn sort(&mut self) {
        self.problems.sort_by_key(|problem| problem.span.as_ref().map_or(0, |at| at.start));
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

    /// As [`fmt::Display`], with colours for a terminal.
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut rendered: Vec<_> =
            self.problems.iter().map(|problem| self.render_problem(problem, renderer)).collect();
        if self.omitted > 0 {
            rendered.push(format!("... and {} problems more", self.omitted));
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
        also: Option<&'a (Range<usize>, String)>,
    ) -> Snippet<'a, Annotation<'a>> {
        let (first_line, last_line) = (self.line_span(at.start), self.line_span(at.end));
        let long = last_line.end - first_line.start > EXCERPT_MAX && first_line == last_line;
        // The columns would be wrong in a cut line; but a line this long has worse problems.
        let visible = if long { self.excerpt_span(at, &first_line) } else { 0..self.text.len() };
        let source = self.text.get(visible.clone()).unwrap_or_default();
        let start = self.text.get(..visible.start).unwrap_or_default().matches('\n').count() + 1;
        let underlined = self.underline(at, &visible);
        let mut snippet = Snippet::source(source)
            .line_start(start)
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(underlined));
        if let Some((at, label)) = also.filter(|_| !long) {
            let underlined = self.underline(at, &visible);
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

    /// The line that holds the byte at `span`, without its end.
    fn line_span(&self, at: usize) -> Range<usize> {
        let at = self.text.floor_char_boundary(at);
        let (before, after) = self.text.split_at(at);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = after.find('\n').map_or(self.text.len(), |newline| at + newline);
        start..end
    }

    /// What is underlined: inside of `visible`, and never more than one line.
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
