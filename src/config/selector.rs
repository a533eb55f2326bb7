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
        let (quoted, matchers) =
            if rest.is_empty() { (None, Vec::new()) } else { parse_matchers(rest)? };
        let name = match quoted {
            Some(quoted) if name.is_empty() => quoted,
            Some(_) => return Err("has two names of a metric".to_owned()),
            None if is_name(name, true) => name.to_owned(),
            None => return Err("does not begin with the name of a metric".to_owned()),
        };
        Ok(Self { text: text.to_owned(), name, matchers })
    }

    /// The name of the metric.
    pub fn metric(&self) -> &str {
        &self.name
    }

    /// Whether a series of the metric matches. `value` returns the value of a label; a missing label
    /// is empty.
    pub fn matches<'v>(&self, value: impl Fn(&str) -> &'v str) -> bool {
        self.matchers.iter().all(|it| {
            let value = value(&it.label);
            match &it.operation {
                MatchOperation::Equal(text) => text == value,
                MatchOperation::NotEqual(text) => text != value,
                MatchOperation::Regex(regex) => regex.is_match(value),
                MatchOperation::NotRegex(regex) => !regex.is_match(value),
            }
        })
    }

    /// Whether it picks one value of this label.
    pub fn has_equal_matcher(&self, label: &str) -> bool {
        let picks = |it: &Matcher| matches!(it.operation, MatchOperation::Equal(_));
        self.matchers.iter().any(|it| it.label == label && picks(it))
    }

    /// Whether one of its names is none before Prometheus 3, so that the server has to be asked not
    /// to escape it.
    pub fn needs_utf8_names(&self) -> bool {
        let labels = self.matchers.iter().any(|it| !is_name(&it.label, false));
        labels || !is_name(&self.name, true)
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

/// The matchers between two braces, and the name of the metric, if it stands there in quotes.
fn parse_matchers(text: &str) -> Result<(Option<String>, Vec<Matcher>), String> {
    const UNCLOSED_BRACE: &str = "has a { without its }";
    let mut rest = text.strip_prefix('{').ok_or(UNCLOSED_BRACE)?.trim_start();
    let (mut name, mut matchers) = (None, Vec::new());
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            let end = after.trim().is_empty();
            return if end {
                Ok((name, matchers))
            } else {
                Err(format!("has \"{}\" after its }}", after.trim()))
            };
        }
        let (label, after) = if rest.starts_with(['"', '\'']) {
            let (quoted, after) = parse_quoted(rest).ok_or(UNCLOSED_BRACE)?;
            let after = after.trim_start();
            if after.starts_with([',', '}']) {
                if name.replace(quoted).is_some() {
                    return Err("has two names of a metric".to_owned());
                }
                rest = after.strip_prefix(',').unwrap_or(after).trim_start();
                continue;
            }
            (quoted, after)
        } else {
            let end = rest.find(['=', '!']).ok_or(UNCLOSED_BRACE)?;
            let (label, after) = rest.split_at(end);
            let label = label.trim();
            if !is_name(label, false) {
                return Err(format!("has \"{label}\" in place of a label name"));
            }
            (label.to_owned(), after)
        };
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
        matchers.push(Matcher { label, operation });
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

    fn matches(selector: &Selector, pairs: &[(&'static str, &'static str)]) -> bool {
        selector.matches(|name| {
            pairs.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
        })
    }

    #[test]
    fn matchers_match_as_in_prometheus() {
        let text = r#"http:requests_total{code=~"5..|429", method!='GET', path!~"/health.*",}"#;
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.metric(), "http:requests_total");
        let picks = |pairs: &[_]| matches(&selector, pairs);
        assert!(picks(&[("code", "503"), ("method", "POST"), ("path", "/mcp")]));
        assert!(picks(&[("code", "429")]), "a missing label is empty");
        assert!(!picks(&[("code", "5030")]), "the whole value");
        assert!(!picks(&[("code", "503"), ("method", "GET")]));
        assert!(!picks(&[("code", "503"), ("path", "/healthz")]));
        assert!(matches(&Selector::parse("up").unwrap(), &[("any", "thing")]));
        let escaped = Selector::parse(r#"x{a="\"}\\"}"#).unwrap();
        assert!(matches(&escaped, &[("a", "\"}\\")]));
    }

    #[test]
    fn names_in_quotes_are_those_of_prometheus_3() {
        let selector =
            Selector::parse(r#"{"http.requests", "status.code"=~"5..", a='b'}"#).unwrap();
        assert_eq!(selector.metric(), "http.requests");
        assert!(selector.needs_utf8_names());
        assert!(matches(&selector, &[("status.code", "500"), ("a", "b")]));
        let plain = Selector::parse(r#"{"up"}"#).unwrap();
        assert_eq!((plain.metric(), plain.needs_utf8_names()), ("up", false));
        assert!(Selector::parse(r#"x{"y"}"#).is_err() && Selector::parse(r#"{"x","y"}"#).is_err());
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
