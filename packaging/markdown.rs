//! Renders the pages of packaging/manual to man pages: the subset of Markdown that they use, and an
//! error for the rest.
//!
//! A page begins with `# NAME(SECTION): DESCRIPTION`. A `##` heading is a section. A `###` heading
//! is an entry; the text below it is indented.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};
use roff::{Inline, Roff, bold, italic, roman};

/// The version that a page is about.
const SOURCE: &str = concat!("rollbackd ", env!("CARGO_PKG_VERSION"));

/// A rendered page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Such as `rollbackd-deciding.7`.
    pub(crate) file: String,
    /// What `man` reads.
    pub(crate) roff: String,
}

/// Renders one page.
///
/// # Errors
/// The page has no title, or uses Markdown that has no form here.
pub(crate) fn render(markdown: &str) -> Result<Page, String> {
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        writer.event(event)?;
    }
    let file = writer.file.ok_or("the page has no title")?;
    // man-db runs tbl only if the first line asks for it.
    let tbl = if writer.has_table { "'\\\" t\n" } else { "" };
    Ok(Page { file, roff: format!("{tbl}{}", writer.roff.render()) })
}

#[derive(Default)]
struct Writer {
    roff: Roff,
    file: Option<String>,
    /// The line that is being read.
    line: Vec<Inline>,
    font: Font,
    /// Below a `###` heading.
    in_entry: bool,
    /// The next paragraph is the first one below a heading or of a list item.
    is_first: bool,
    in_code: bool,
    has_table: bool,
}

#[derive(Default, Clone, Copy)]
enum Font {
    #[default]
    Roman,
    Bold,
    Italic,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(tag) => return self.start(&tag),
            Event::End(tag) => return self.end(tag),
            Event::Text(text) if self.in_code => {
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
            }
            Event::Text(text) => self.line.push(match self.font {
                Font::Roman => roman(&*text),
                Font::Bold => bold(&*text),
                Font::Italic => italic(&*text),
            }),
            Event::Code(text) => self.line.push(bold(&*text)),
            Event::SoftBreak => self.line.push(roman(" ")),
            Event::Html(text) if text.starts_with("<!--") => (),
            other => return Err(format!("no form in a man page: {other:?}")),
        }
        Ok(())
    }

    fn start(&mut self, tag: &Tag<'_>) -> Result<(), String> {
        match tag {
            Tag::Heading { .. } | Tag::HtmlBlock | Tag::Link { .. } => (),
            Tag::Paragraph if self.is_first => (),
            Tag::Paragraph => self.control(if self.in_entry { "IP" } else { "PP" }, &[]),
            Tag::List(None) if self.in_entry => self.control("RS", &[]),
            Tag::List(None) => (),
            Tag::Item => {
                self.control("IP", &["\\(bu", "2"]);
                self.is_first = true;
            }
            Tag::CodeBlock(_) => {
                self.control("sp", &[]);
                self.control("RS", &["4"]);
                self.control("EX", &[]);
                self.in_code = true;
            }
            Tag::Table(columns) => {
                self.control("sp", &[]);
                self.control("TS", &[]);
                let separated = "l2 ".repeat(columns.len().saturating_sub(1));
                self.roff.text([roman(format!("{separated}l."))]);
                self.has_table = true;
            }
            Tag::TableHead | Tag::TableRow => (),
            Tag::TableCell if self.line.is_empty() => (),
            Tag::TableCell => self.line.push(roman("\t")),
            Tag::Strong => self.font = Font::Bold,
            Tag::Emphasis => self.font = Font::Italic,
            other => return Err(format!("no form in a man page: {other:?}")),
        }
        Ok(())
    }

    fn end(&mut self, tag: TagEnd) -> Result<(), String> {
        match tag {
            TagEnd::Heading(level) => return self.heading(level),
            TagEnd::Paragraph | TagEnd::Item | TagEnd::TableHead | TagEnd::TableRow => self.flush(),
            TagEnd::List(_) if self.in_entry => self.control("RE", &[]),
            TagEnd::CodeBlock => {
                self.control("EE", &[]);
                self.control("RE", &[]);
                self.in_code = false;
                self.is_first = false;
            }
            TagEnd::Table => self.control("TE", &[]),
            TagEnd::Strong | TagEnd::Emphasis => self.font = Font::Roman,
            _ => (),
        }
        Ok(())
    }

    fn heading(&mut self, level: HeadingLevel) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        let text: String = line.iter().map(plain).collect();
        match level {
            HeadingLevel::H1 => self.title(&text)?,
            HeadingLevel::H2 => self.control("SH", &[&text]),
            HeadingLevel::H3 => {
                self.control("TP", &[]);
                self.roff.text(line);
            }
            _ => return Err(format!("no form in a man page: the heading {text}")),
        }
        self.in_entry = level == HeadingLevel::H3;
        self.is_first = true;
        Ok(())
    }

    /// `NAME(SECTION): DESCRIPTION`
    fn title(&mut self, text: &str) -> Result<(), String> {
        let parts = text.split_once("): ").and_then(|(page, about)| {
            let (name, section) = page.split_once('(')?;
            Some((name, section, about))
        });
        let (name, section, about) = parts.ok_or("write # NAME(SECTION): DESCRIPTION")?;
        self.control("TH", &[name, section, "\"\"", SOURCE, "rollbackd"]);
        self.control("SH", &["NAME"]);
        self.roff.text([roman(format!("{name} - {about}"))]);
        self.control("SH", &["DESCRIPTION"]);
        self.file = Some(format!("{name}.{section}"));
        Ok(())
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
        self.is_first = false;
    }

    fn control(&mut self, name: &str, arguments: &[&str]) {
        self.roff.control(name, arguments.iter().copied());
    }
}

fn plain(inline: &Inline) -> &str {
    match inline {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text,
        Inline::LineBreak => " ",
    }
}
