//! The text format of Prometheus, read as strictly as a verdict needs: a line of the selected metric
//! that does not match the specification is an error with its number.
//!
//! Names and labels are read here: prometheus-parse drops or changes valid lines (`foo{} 1`, names
//! with colons, label values with `}`, `,` or `=`) and accepts a page of HTML.

use crate::config::Selector;

/// The format of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextFormat {
    /// Timestamps are in milliseconds.
    Prometheus,
    /// Timestamps are in seconds, and the last line is `# EOF`.
    OpenMetrics,
}

/// The series that a selector matches.
#[derive(Debug, Default)]
pub(super) struct SelectedSum {
    /// Whether the page names the metric, as a series or in a TYPE comment.
    pub(super) metric_exists: bool,
    /// The sum of the matching series; `None` if none matches.
    pub(super) value: Option<f64>,
    /// The oldest of their timestamps, in milliseconds since 1970, if one has a timestamp.
    pub(super) oldest_timestamp: Option<f64>,
}

/// One line with a value.
struct Sample<'a> {
    labels: Vec<(String, String)>,
    value: f64,
    timestamp: Option<&'a str>,
}

/// Adds up the series that `selector` matches.
pub(super) fn sum_selected(
    text: &str,
    selector: &Selector,
    format: TextFormat,
) -> Result<SelectedSum, String> {
    let mut sum = SelectedSum::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            let mut words = comment.split_ascii_whitespace();
            let typed = words.next() == Some("TYPE");
            let name = words.next().filter(|_| typed);
            sum.metric_exists |= name.is_some_and(|name| is_family(name, selector.metric()));
            continue;
        }
        let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        if name != selector.metric() {
            continue;
        }
        sum.metric_exists = true;
        let syntax_error =
            || format!("line {} of the metrics is invalid: {}", index + 1, shorten_line(line));
        let series = parse_sample(rest).ok_or_else(syntax_error)?;
        if !selector.matches(&series.labels) {
            continue;
        }
        sum.value = Some(sum.value.unwrap_or(0.0) + series.value);
        if let Some(at) = series.timestamp {
            let at: f64 = at.parse().map_err(|_| syntax_error())?;
            let at = match format {
                TextFormat::Prometheus => at,
                TextFormat::OpenMetrics => at * 1_000.0,
            };
            sum.oldest_timestamp =
                Some(sum.oldest_timestamp.map_or(at, |oldest: f64| oldest.min(at)));
        }
    }
    Ok(sum)
}

/// OpenMetrics declares the type of `x_total` under the name `x`.
fn is_family(family: &str, name: &str) -> bool {
    name == family || name.strip_suffix("_total") == Some(family)
}

/// Reads what follows the name: labels, a value, a timestamp, and in OpenMetrics an exemplar after #.
fn parse_sample(text: &str) -> Option<Sample<'_>> {
    let (labels, rest) = match text.trim_start().strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), text),
    };
    let rest = rest.split_once(" # ").map_or(rest, |(before, _)| before);
    let mut words = rest.split_ascii_whitespace();
    let value = parse_number(words.next()?)?;
    let at = words.next();
    words.next().is_none().then_some(Sample { labels, value, timestamp: at })
}

/// Reads labels up to the closing brace; returns the rest, too.
fn parse_labels(text: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut rest = text.trim_start();
    let mut labels = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (label, after) = rest.split_once('=')?;
        let (value, after) = parse_quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((label.trim().to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with('}') => (),
            None => return None,
        }
    }
}

/// Reads a label value up to its closing quote; returns the rest, too.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut letters = text.char_indices();
    let mut value = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            other => value.push(other),
        }
    }
    None
}

fn parse_number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

fn shorten_line(line: &str) -> String {
    crate::signal::http_client::shorten(&line.chars().take(80).collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"# HELP http_requests_total All requests.
# TYPE http_requests_total counter
http_requests_total{} 1
http_requests_total{code="200",path="/a,b={c}\"\\"} 100 1395066363000
http_requests_total{ code = "503" , path="/" , } 7 1395066360000
http_requests_total{code="500"} 2 # {trace_id="x # y"} 1
http_requests_total_more{code="500"} 1000
job:errors:sum 4.5e1
# TYPE seldom counter
broken NaN
"#;

    fn read(selector: &str) -> Result<SelectedSum, String> {
        sum_selected(TEXT, &Selector::parse(selector).unwrap(), TextFormat::Prometheus)
    }

    #[test]
    fn matching_series_are_added_up() {
        let value = |selector| read(selector).unwrap().value;
        assert_eq!(value("http_requests_total"), Some(110.0));
        assert_eq!(value(r#"http_requests_total{code=~"5.."}"#), Some(9.0));
        assert_eq!(value(r#"http_requests_total{path="/a,b={c}\"\\"}"#), Some(100.0));
        assert_eq!(value("job:errors:sum"), Some(45.0));
        assert!(value("broken").unwrap().is_nan());
        assert_eq!(
            read("http_requests_total").unwrap().oldest_timestamp,
            Some(1_395_066_360_000.0),
            "the oldest"
        );
        let none = |selector| {
            let sum = read(selector).unwrap();
            (sum.metric_exists, sum.value)
        };
        assert_eq!(none(r#"http_requests_total{code="404"}"#), (true, None));
        assert_eq!(none("seldom"), (true, None));
        assert_eq!(none("http_requests"), (false, None));
    }

    #[test]
    fn an_invalid_line_is_an_error_with_its_number() {
        for line in [
            "a",
            "a x",
            "a 1 2 3",
            "a{b=\"c\" 1",
            "a{b=c} 1",
            "a{b=\"c\"",
            "a{b=\"\\x\"} 1",
            "a 1 y",
        ] {
            let selector = Selector::parse("a").unwrap();
            let result =
                sum_selected(&format!("ok 1\n{line}\n"), &selector, TextFormat::Prometheus);
            assert!(result.is_err_and(|it| it.starts_with("line 2 ")), "{line}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_gives_a_sum_or_an_error(text in "(a|[a{}=\"\\\\#., \n0-9a-z])*") {
            let _ = sum_selected(&text, &Selector::parse("a").unwrap(), TextFormat::OpenMetrics);
        }
    }
}
