//! Which series of a counter are meant: `http_requests_total{code=~"5.."}`, as in Prometheus.

use std::fmt;

use regex_lite::{Regex, RegexBuilder};

/// Longest text of a selector, in bytes.
const BYTES_MAX: usize = 1_024;
/// Largest program of one expression, in bytes.
const REGEX_BYTES_MAX: usize = 64 * 1_024;

/// A metric, and what its labels must be. The values of all series that fit are added up.
#[derive(Debug, Clone)]
pub struct Selector {
    text: String,
    name: String,
    matchers: Vec<Matcher>,
}

#[derive(Debug, Clone)]
struct Matcher {
    label: String,
    value: MatchValue,
    /// Whether it fits where the value is not the wanted one.
    negated: bool,
}

#[derive(Debug, Clone)]
enum MatchValue {
    Text(String),
    Pattern(Regex),
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// What can not be understood.
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

    /// The metric.
    pub fn metric(&self) -> &str {
        &self.name
    }

    /// Whether a series of the metric is meant. A label that it lacks counts as empty.
    pub fn matches(&self, labels: &[(String, String)]) -> bool {
        self.matchers.iter().all(|it| {
            let value = labels.iter().find(|(label, _)| *label == it.label);
            let value = value.map_or("", |(_, value)| value.as_str());
            let fits = match &it.value {
                MatchValue::Text(text) => text == value,
                MatchValue::Pattern(pattern) => pattern.is_match(value),
            };
            fits != it.negated
        })
    }
}

/// Two selectors are the same if they are written the same.
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
                Err(format!("has \"{}\" behind its }}", after.trim()))
            };
        }
        let end = rest.find(['=', '!']).ok_or(UNCLOSED_BRACE)?;
        let (label, after) = rest.split_at(end);
        let label = label.trim();
        if !is_name(label, false) {
            return Err(format!("has \"{label}\" where the name of a label belongs"));
        }
        let operators =
            [("=~", true, false), ("!~", true, true), ("!=", false, true), ("=", false, false)];
        let found = operators.iter().find_map(|(operator, pattern, not)| {
            after.strip_prefix(operator).map(|after| (after, *pattern, *not))
        });
        let (after, pattern, not) =
            found.ok_or_else(|| format!("compares `{label}` with none of =, !=, =~ and !~"))?;
        let (value, after) = parse_quoted(after.trim_start())
            .ok_or_else(|| format!("has no value in quotes for `{label}`"))?;
        let wanted = if pattern {
            MatchValue::Pattern(anchored_regex(&value)?)
        } else {
            MatchValue::Text(value)
        };
        matchers.push(Matcher { label: label.to_owned(), value: wanted, negated: not });
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => (),
            None => return Err(UNCLOSED_BRACE.to_owned()),
        }
    }
}

/// In Prometheus an expression must fit the whole value.
fn anchored_regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| format!("has an expression that is none: {error}"))
}

/// A text in double or single quotes, and what follows.
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
    fn matchers_fit_as_in_prometheus() {
        let text = r#"http:requests_total{code=~"5..|429", method!='GET', path!~"/health.*",}"#;
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.metric(), "http:requests_total");
        let picks = |pairs: &[_]| selector.matches(&labels(pairs));
        assert!(picks(&[("code", "503"), ("method", "POST"), ("path", "/mcp")]));
        assert!(picks(&[("code", "429")]), "a label that is not there is empty");
        assert!(!picks(&[("code", "5030")]), "the whole value");
        assert!(!picks(&[("code", "503"), ("method", "GET")]));
        assert!(!picks(&[("code", "503"), ("path", "/healthz")]));
        assert!(Selector::parse("up").unwrap().matches(&labels(&[("any", "thing")])));
        let escaped = Selector::parse(r#"x{a="\"}\\"}"#).unwrap();
        assert!(escaped.matches(&labels(&[("a", "\"}\\")])));
    }

    #[test]
    fn what_is_no_selector_says_so() {
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
