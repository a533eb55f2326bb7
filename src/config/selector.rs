//! Selects series of a metric, as Prometheus does: `http_requests_total{code=~"5.."}`.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

/// Longest text of a selector, in bytes.
const BYTES_MAX: usize = 1_024;
/// Largest compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 64 * 1_024;

/// A metric and its label matchers. The values of all matching series are added up.
#[derive(Debug, Clone)]
pub struct Selector {
    text: String,
    name: String,
    matchers: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    operation: MatchOperation,
}

/// The match operations, named as in Prometheus.
#[derive(Debug, Clone)]
enum MatchOperation {
    Equal(String),
    NotEqual(String),
    Regex(Regex),
    NotRegex(Regex),
}

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if BYTES_MAX < text.len() {
            return Err(format!("is longer than {BYTES_MAX} bytes"));
        }
        let (name, rest) = match text.find('{') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let name = name.trim();
        if !is_name(name, true) {
            return Err("does not begin with the name of a metric".to_owned());
        }
        let matchers = if rest.is_empty() { Vec::new() } else { parse_matchers(rest)? };
        Ok(Self { text: text.to_owned(), name: name.to_owned(), matchers })
    }

    /// The name of the metric.
    pub fn metric(&self) -> &str {
        &self.name
    }

    /// Whether a series of the metric matches. A missing label counts as empty.
    pub fn matches(&self, labels: &[(String, String)]) -> bool {
        self.matchers.iter().all(|it| {
            let value = labels.iter().find(|(label, _)| *label == it.label);
            let value = value.map_or("", |(_, value)| value.as_str());
            match &it.operation {
                MatchOperation::Equal(text) => text == value,
                MatchOperation::NotEqual(text) => text != value,
                MatchOperation::Regex(regex) => regex.is_match(value),
                MatchOperation::NotRegex(regex) => !regex.is_match(value),
            }
        })
    }
}

/// Two selectors are equal if their texts are.
impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_matchers(text: &str) -> Result<Vec<Matcher>, String> {
    const UNCLOSED_BRACE: &str = "has a { without its }";
    let mut rest = text.strip_prefix('{').ok_or(UNCLOSED_BRACE)?.trim_start();
    let mut matchers = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            let end = after.trim().is_empty();
            return if end {
                Ok(matchers)
            } else {
                Err(format!("has \"{}\" after its }}", after.trim()))
            };
        }
        let end = rest.find(['=', '!']).ok_or(UNCLOSED_BRACE)?;
        let (label, after) = rest.split_at(end);
        let label = label.trim();
        if !is_name(label, false) {
            return Err(format!("has \"{label}\" in place of a label name"));
        }
        let operator = ["=~", "!~", "!=", "="].into_iter().find(|it| after.starts_with(it));
        let Some(operator) = operator else {
            return Err(format!("compares `{label}` with none of =, !=, =~ and !~"));
        };
        let after = after.strip_prefix(operator).unwrap_or(after);
        let (value, after) = parse_quoted(after.trim_start())
            .ok_or_else(|| format!("has no value in quotes for `{label}`"))?;
        let operation = match operator {
            "=~" => MatchOperation::Regex(anchored_regex(&value)?),
            "!~" => MatchOperation::NotRegex(anchored_regex(&value)?),
            "!=" => MatchOperation::NotEqual(value),
            _ => MatchOperation::Equal(value),
        };
        matchers.push(Matcher { label: label.to_owned(), operation });
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => (),
            None => return Err(UNCLOSED_BRACE.to_owned()),
        }
    }
}

/// In Prometheus a regular expression must match the whole value.
fn anchored_regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| format!("has a wrong regular expression: {error}"))
}

/// Parses a text in double or single quotes; returns it and the rest.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, it)| matches!(it, '"' | '\''))?;
    let mut value = String::new();
    while let Some((at, letter)) = chars.next() {
        match letter {
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other @ ('\\' | '"' | '\'') => other,
                _ => return None,
            }),
            it if it == quote => return Some((value, text.get(at + 1..)?)),
            it => value.push(it),
        }
    }
    None
}

fn is_name(text: &str, allow_colons: bool) -> bool {
    let plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || (allow_colons && it == ':');
    text.chars().all(plain) && text.starts_with(|it: char| !it.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn matchers_match_as_in_prometheus() {
        let text = r#"http:requests_total{code=~"5..|429", method!='GET', path!~"/health.*",}"#;
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.metric(), "http:requests_total");
        let picks = |pairs: &[_]| selector.matches(&labels(pairs));
        assert!(picks(&[("code", "503"), ("method", "POST"), ("path", "/mcp")]));
        assert!(picks(&[("code", "429")]), "a missing label is empty");
        assert!(!picks(&[("code", "5030")]), "the whole value");
        assert!(!picks(&[("code", "503"), ("method", "GET")]));
        assert!(!picks(&[("code", "503"), ("path", "/healthz")]));
        assert!(Selector::parse("up").unwrap().matches(&labels(&[("any", "thing")])));
        let escaped = Selector::parse(r#"x{a="\"}\\"}"#).unwrap();
        assert!(escaped.matches(&labels(&[("a", "\"}\\")])));
    }

    #[test]
    fn a_wrong_selector_is_an_error() {
        for text in [
            "",
            "{}",
            "5xx",
            "a b",
            "x{",
            "x{code}",
            "x{code=5}",
            "x{code=\"5\"",
            "x{code=~\"(\"}",
            "x{code=\"5\"} / y",
            "sum(x)",
            "x{co de=\"5\"}",
            "x{code=\"5\" y=\"6\"}",
            "x{code==\"5\"}",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }
}
