//! The page of a metrics endpoint, line by line: what Prometheus reads is read the same, and what it
//! refuses is an error with the line.
//!
//! The grammar is that of Prometheus 3 (`model/textparse`), which also reads whatever 2.x reads. It
//! is more lenient than the specification of the text format (unknown escapes stay as they are, the
//! last line break may be missing), and as strict in that one bad line refuses the whole page. One
//! difference: a NUL byte outside of a text ends the page for Prometheus, and is an error here.
//! `tests/probes/differential` compares it with the Prometheus of Debian.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::signal::http_client;
use crate::signal::metrics_value::{parse_number, unescape};
use crate::signal::text_format::TextFormat;

/// The most characters of a line that an error shows.
const SHOWN_MAX: usize = 80;

/// One line that says something about a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line<'p> {
    /// `# TYPE family kind`.
    Type { family: Cow<'p, str>, kind: &'p str },
    /// A series and its value.
    Sample(Sample<'p>),
}

/// The name and the value of a label.
pub(super) type Label<'p> = (Cow<'p, str>, Cow<'p, str>);

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample<'p> {
    pub(super) name: Cow<'p, str>,
    pub(super) labels: Vec<Label<'p>>,
    /// A valid number.
    pub(super) value: &'p str,
    /// A valid number, in the unit of the format.
    pub(super) timestamp: Option<&'p str>,
}

/// Reads a page from its first line to its last.
#[derive(Debug)]
pub(super) struct PageReader<'p> {
    page: &'p [u8],
    format: TextFormat,
    /// The next byte to read.
    at: usize,
    /// Where the line that is being read begins.
    line_start: usize,
}

/// Why a line is invalid.
type Invalid = &'static str;

impl<'p> PageReader<'p> {
    /// Begins before the first line.
    pub(super) fn new(page: &'p [u8], format: TextFormat) -> Self {
        Self { page, format, at: 0, line_start: 0 }
    }

    /// The next line; `None` after the last. A comment is skipped.
    ///
    /// # Errors
    /// A line that Prometheus refuses, with its number.
    pub(super) fn next_line(&mut self) -> Result<Option<Line<'p>>, String> {
        loop {
            self.line_start = self.at;
            match self.read_line() {
                Ok(LineRead::End) => return Ok(None),
                Ok(LineRead::Skipped) => (),
                Ok(LineRead::Line(line)) => return Ok(Some(line)),
                Err(why) => return Err(self.describe(why)),
            }
        }
    }

    fn describe(&self, why: Invalid) -> String {
        let before = self.page.get(..self.line_start).unwrap_or_default();
        let number = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let rest = self.page.get(self.line_start..).unwrap_or_default();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line: String = String::from_utf8_lossy(line).chars().take(SHOWN_MAX).collect();
        let line = http_client::shorten(line.trim_end_matches('\r'));
        format!("line {number} of the metrics is invalid ({why}): {line}")
    }

    fn read_line(&mut self) -> Result<LineRead<'p>, Invalid> {
        if self.at == 0 && self.page.starts_with(b"\xef\xbb\xbf") {
            return Err("it begins with a byte order mark");
        }
        if self.format == TextFormat::Prometheus {
            self.skip_space();
        }
        match self.peek() {
            None if self.format == TextFormat::Prometheus => Ok(LineRead::End),
            None => Err("the page does not end with # EOF, so it is incomplete"),
            Some(b'\n') if self.format == TextFormat::Prometheus => {
                self.at += 1;
                Ok(LineRead::Skipped)
            }
            Some(b'#') => self.read_comment(),
            Some(_) => self.read_sample().map(|sample| LineRead::Line(Line::Sample(sample))),
        }
    }

    /// A line that begins with `#`.
    fn read_comment(&mut self) -> Result<LineRead<'p>, Invalid> {
        self.at += 1;
        let spaced = self.skip_separator();
        if self.format == TextFormat::OpenMetrics && spaced && self.take(b"EOF") {
            self.take(b"\n");
            return match self.peek() {
                None => Ok(LineRead::End),
                Some(_) => Err("there is data after # EOF"),
            };
        }
        let keyword = [&b"HELP"[..], b"TYPE", b"UNIT"].into_iter().find(|keyword| {
            let known = self.format == TextFormat::OpenMetrics || *keyword != b"UNIT";
            let rest = self.page.get(self.at..).unwrap_or_default();
            let after = rest.strip_prefix(*keyword).and_then(|after| after.first());
            spaced && known && after.is_some_and(|byte| self.format.is_space(*byte))
        });
        let Some(keyword) = keyword else {
            if self.format == TextFormat::OpenMetrics {
                return Err("OpenMetrics has no such comment");
            }
            self.rest_of_line();
            return Ok(LineRead::Skipped);
        };
        self.at += keyword.len();
        self.skip_separator();
        let family = match self.peek() {
            Some(b'"') => unescape(self.quoted()?)?,
            _ => Cow::Borrowed(self.name(true).ok_or("a metric name is missing")?),
        };
        if self.format == TextFormat::OpenMetrics && self.peek() != Some(b' ') {
            return Err("one space has to be after the metric name");
        }
        // In the text format, Prometheus reads any byte as the space.
        let text = self.rest_of_line();
        let text = text.split_first().map_or(text, |(_, text)| text);
        match keyword {
            b"TYPE" => {
                let kind = self.format.kind(text).ok_or("there is no such type")?;
                Ok(LineRead::Line(Line::Type { family, kind }))
            }
            b"HELP" if std::str::from_utf8(text).is_err() => Err("its text is not UTF-8"),
            b"UNIT" if !has_unit(&family, text) => Err("the name does not end with its unit"),
            _ => Ok(LineRead::Skipped),
        }
    }

    fn read_sample(&mut self) -> Result<Sample<'p>, Invalid> {
        let mut name = match self.peek() {
            Some(b'{') => None,
            _ => Some(Cow::Borrowed(self.name(true).ok_or("it begins like no metric")?)),
        };
        if self.format == TextFormat::Prometheus {
            self.skip_space();
        }
        let labels = match self.take(b"{") {
            true => self.read_labels(&mut name)?,
            false => Vec::new(),
        };
        if labels.iter().any(|(label, _)| label == "__name__") {
            return Err("it has a second metric name, in the label __name__");
        }
        let name = name.ok_or("a metric name is missing")?;
        if self.format == TextFormat::OpenMetrics && !self.take(b" ") {
            return Err("one space has to be before the value");
        }
        self.skip_space_of_prometheus();
        let value = self.word(b"{")?;
        parse_number(value).ok_or("its value is no number")?;
        let timestamp = match self.format {
            TextFormat::Prometheus => self.end_of_prometheus_sample()?,
            TextFormat::OpenMetrics => self.end_of_open_metrics_sample()?,
        };
        Ok(Sample { name, labels, value, timestamp })
    }

    /// The timestamp of a line of the text format, and the line break.
    fn end_of_prometheus_sample(&mut self) -> Result<Option<&'p str>, Invalid> {
        self.skip_space();
        let mut timestamp = None;
        if self.peek().is_some_and(|byte| byte != b'\n') {
            let word = self.word(b"")?;
            let is_whole = word.bytes().all(|byte| byte.is_ascii_digit());
            if !is_whole || word.parse::<i64>().is_err() {
                return Err("its timestamp is no whole number");
            }
            timestamp = Some(word);
            self.skip_space();
        }
        match self.peek() {
            None => Ok(timestamp),
            Some(_) if self.take(b"\n") => Ok(timestamp),
            Some(_) => Err("something follows the timestamp"),
        }
    }

    /// The timestamp and the exemplar of a line of OpenMetrics, and the line break.
    fn end_of_open_metrics_sample(&mut self) -> Result<Option<&'p str>, Invalid> {
        const NUMBER: Invalid = "its timestamp is no number";
        let mut timestamp = None;
        if !self.rest().starts_with(b" # {") && self.take(b" ") {
            let word = self.word(b"")?;
            parse_number(word).filter(|it| it.is_finite()).ok_or(NUMBER)?;
            timestamp = Some(word);
        }
        if self.take(b" # {") {
            self.read_labels(&mut Some(Cow::Borrowed("")))?;
            if !self.take(b" ") {
                return Err("its exemplar has no value");
            }
            let value = self.word(b"")?;
            parse_number(value).ok_or("the value of its exemplar is no number")?;
            if self.take(b" ") {
                let word = self.word(b"")?;
                parse_number(word).filter(|it| it.is_finite()).ok_or(NUMBER)?;
            }
        }
        match self.take(b"\n") {
            true => Ok(timestamp),
            false => Err("the line does not end where it should"),
        }
    }

    /// The labels after an opening brace, and the brace that closes them. A quoted text alone is the
    /// name of the metric, if that is not known yet.
    fn read_labels(&mut self, name: &mut Option<Cow<'p, str>>) -> Result<Vec<Label<'p>>, Invalid> {
        let mut labels: Vec<Label<'p>> = Vec::new();
        loop {
            self.skip_space_of_prometheus();
            if self.take(b"}") {
                break;
            }
            let (label, is_quoted) = match self.peek() {
                Some(b'"') => (unescape(self.quoted()?)?, true),
                _ => (Cow::Borrowed(self.name(false).ok_or("a label name is missing")?), false),
            };
            if label.is_empty() {
                return Err("a name is empty");
            }
            self.skip_space_of_prometheus();
            if is_quoted && matches!(self.peek(), Some(b',' | b'}')) {
                if name.replace(label).is_some() {
                    return Err("it has two metric names");
                }
                self.take(b",");
                continue;
            }
            if !self.take(b"=") {
                return Err("a label has no =");
            }
            self.skip_space_of_prometheus();
            let value = self.quoted()?;
            if self.format == TextFormat::OpenMetrics && value.contains(&b'\n') {
                return Err("a label value has a line break");
            }
            labels.push((label, unescape(value)?));
            self.skip_space_of_prometheus();
            if !self.take(b",")
                && self.format == TextFormat::OpenMetrics
                && self.peek() != Some(b'}')
            {
                return Err("a comma is missing between two labels");
            }
        }
        let different: BTreeSet<&str> = labels.iter().map(|(label, _)| label.as_ref()).collect();
        match different.len() == labels.len() {
            true => Ok(labels),
            false => Err("it has a label twice"),
        }
    }

    /// A text in quotes, without them and not unescaped.
    fn quoted(&mut self) -> Result<&'p [u8], Invalid> {
        if !self.take(b"\"") {
            return Err("a label value has no quotes");
        }
        let rest = self.rest();
        let mut escaped = false;
        for (length, byte) in rest.iter().enumerate() {
            match byte {
                b'\n' if escaped => break,
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at += length + 1;
                    return Ok(rest.get(..length).unwrap_or_default());
                }
                _ => (),
            }
        }
        Err("a quote is not closed")
    }

    /// The name of a metric or of a label, without quotes.
    fn name(&mut self, allow_colons: bool) -> Option<&'p str> {
        let rest = self.rest();
        let is_first = |byte: &u8| {
            byte.is_ascii_alphabetic() || *byte == b'_' || (allow_colons && *byte == b':')
        };
        rest.first().filter(|byte| is_first(byte))?;
        let end = rest.iter().position(|it| !is_first(it) && !it.is_ascii_digit());
        let name = rest.get(..end.unwrap_or(rest.len()))?;
        self.at += name.len();
        std::str::from_utf8(name).ok()
    }

    /// Everything up to white space, the end of the line, or one of the `ends`.
    fn word(&mut self, ends: &[u8]) -> Result<&'p str, Invalid> {
        let rest = self.rest();
        let is_end =
            |byte: &u8| self.format.is_space(*byte) || *byte == b'\n' || ends.contains(byte);
        let word = rest.get(..rest.iter().position(is_end).unwrap_or(rest.len()));
        let word = word.unwrap_or_default();
        self.at += word.len();
        match std::str::from_utf8(word) {
            Ok("") => Err("a value is missing"),
            Ok(word) => Ok(word),
            Err(_) => Err("it is not UTF-8"),
        }
    }

    /// The rest of the line; the line break is read, too.
    fn rest_of_line(&mut self) -> &'p [u8] {
        let rest = self.rest();
        let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
        self.at = (self.at + line.len() + 1).min(self.page.len());
        line
    }

    fn rest(&self) -> &'p [u8] {
        self.page.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.page.get(self.at).copied()
    }

    fn take(&mut self, expected: &[u8]) -> bool {
        let found = self.rest().starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| self.format.is_space(byte)) {
            self.at += 1;
        }
    }

    /// OpenMetrics allows white space nowhere but between two fields.
    fn skip_space_of_prometheus(&mut self) {
        if self.format == TextFormat::Prometheus {
            self.skip_space();
        }
    }

    /// White space between the words of a comment: one space in OpenMetrics. Whether there is any.
    fn skip_separator(&mut self) -> bool {
        let before = self.at;
        match self.format {
            TextFormat::Prometheus => self.skip_space(),
            TextFormat::OpenMetrics => _ = self.take(b" "),
        }
        before < self.at
    }
}

/// Whether the name of a family ends with `_` and its unit. An empty unit is none.
fn has_unit(family: &str, unit: &[u8]) -> bool {
    let before = family.as_bytes().strip_suffix(unit);
    unit.is_empty() || before.is_some_and(|before| before.ends_with(b"_"))
}

/// What one line came to.
enum LineRead<'p> {
    Line(Line<'p>),
    /// A comment or an empty line.
    Skipped,
    End,
}

#[cfg(test)]
#[path = "metrics_page_tests.rs"]
mod tests;
