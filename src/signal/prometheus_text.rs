//! The text format of Prometheus, read as strictly as a verdict needs: a line of the selected metric
//! that does not match the specification is an error with its number.
//!
//! This module reads names and labels and selects the series: prometheus-parse drops or changes valid
//! lines (`foo{} 1`, names with colons, label values with `}`, `,` or `=`) and accepts a page of HTML.
//! It reads the numbers, from a page of the selected series under plain names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use prometheus_parse::{Scrape, Value};

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
    value: &'a str,
    timestamp: Option<&'a str>,
}

/// Adds up the series that `selector` matches.
pub(super) fn sum_selected(
    text: &str,
    selector: &Selector,
    format: TextFormat,
) -> Result<SelectedSum, String> {
    let mut sum = SelectedSum::default();
    let mut selected = Vec::new();
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
        let series = parse_sample(rest).ok_or_else(|| invalid_line(index, line))?;
        selected.push(SelectedLine {
            index,
            line,
            matches: selector.matches(&series.labels),
            value: series.value,
            timestamp: series.timestamp,
        });
    }
    let numbers = parse_numbers(&selected)?;
    for (number, selected) in selected.iter().enumerate().filter(|(_, it)| it.matches) {
        let invalid = || invalid_line(selected.index, selected.line);
        let value = numbers.get(&value_name(number)).ok_or_else(invalid)?;
        sum.value = Some(sum.value.unwrap_or(0.0) + value);
        if selected.timestamp.is_some() {
            let at = *numbers.get(&timestamp_name(number)).ok_or_else(invalid)?;
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

/// A line of the selected metric, with its numbers as text.
struct SelectedLine<'a> {
    index: usize,
    line: &'a str,
    /// Whether its labels match the selector. The other lines must be valid, too.
    matches: bool,
    value: &'a str,
    timestamp: Option<&'a str>,
}

fn value_name(number: usize) -> String {
    format!("m_{number}")
}

fn timestamp_name(number: usize) -> String {
    format!("t_{number}")
}

/// The numbers of all lines by name. Each must be read exactly once: the crate skips what it cannot
/// read.
fn parse_numbers(lines: &[SelectedLine<'_>]) -> Result<BTreeMap<String, f64>, String> {
    let mut page = String::new();
    for (number, selected) in lines.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{} {}", value_name(number), selected.value);
        if let Some(timestamp) = selected.timestamp {
            let _ = writeln!(page, "{} {timestamp}", timestamp_name(number));
        }
    }
    let scrape = Scrape::parse(page.lines().map(|line| Ok(line.to_owned())))
        .map_err(|error| format!("the metrics cannot be read: {error}"))?;
    let mut numbers = BTreeMap::new();
    for sample in scrape.samples {
        let Value::Untyped(number) = sample.value else {
            return Err(format!("the metrics cannot be read: {} is no number", sample.metric));
        };
        if numbers.insert(sample.metric, number).is_some() {
            return Err("the metrics cannot be read: a number appeared twice".to_owned());
        }
    }
    for (number, selected) in lines.iter().enumerate() {
        let has_timestamp = || numbers.contains_key(&timestamp_name(number));
        let complete = numbers.contains_key(&value_name(number))
            && (selected.timestamp.is_none() || has_timestamp());
        if !complete {
            return Err(invalid_line(selected.index, selected.line));
        }
    }
    Ok(numbers)
}

fn invalid_line(index: usize, line: &str) -> String {
    let line = crate::signal::http_client::shorten(&line.chars().take(80).collect::<String>());
    format!("line {} of the metrics is invalid: {line}", index + 1)
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
    let (value, timestamp) = (words.next()?, words.next());
    // Other white space would separate words for the crate, but not here.
    let is_word = |word: &str| word.bytes().all(|byte| byte.is_ascii_graphic());
    let valid = words.next().is_none() && is_word(value) && timestamp.is_none_or(is_word);
    valid.then_some(Sample { labels, value, timestamp })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SelectedSum, Selector, TextFormat, sum_selected};

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
            "a 1\u{a0}2",
            "a 1\u{b}2",
        ] {
            let selector = Selector::parse("a").unwrap();
            let result =
                sum_selected(&format!("ok 1\n{line}\n"), &selector, TextFormat::Prometheus);
            assert!(result.is_err_and(|it| it.starts_with("line 2 ")), "{line}");
        }
    }

    /// The text of a number and its value; `None` if the text is no number.
    fn number() -> impl Strategy<Value = (String, Option<f64>)> {
        let finite = any::<f64>().prop_filter("finite", |it| it.is_finite());
        prop_oneof![
            8 => finite.prop_map(|it| (format!("{it:e}"), Some(it))),
            8 => (0..1_000_000_u32).prop_map(|it| (it.to_string(), Some(f64::from(it)))),
            1 => Just(("+Inf".to_owned(), Some(f64::INFINITY))),
            1 => Just(("-Inf".to_owned(), Some(f64::NEG_INFINITY))),
            1 => Just(("NaN".to_owned(), Some(f64::NAN))),
            1 => "(0x1|1,5|--1|1e|one|1_0)".prop_map(|it| (it, None)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        /// An independent reader: the lines are built from their parts, so the sum is known.
        #[test]
        fn a_page_is_summed_exactly_or_rejected(
            lines in prop::collection::vec((0..4_usize, "[ab]", "[ -~]{0,4}", number(), any::<bool>()), 0..8)
        ) {
            let (mut page, mut expected, mut valid) = (String::new(), None, true);
            for (form, name, label, (text, number), typed) in lines {
                if typed {
                    page.push_str("# TYPE a counter\n");
                }
                let escaped = label.replace('\\', "\\\\").replace('"', "\\\"");
                page.push_str(&match form {
                    0 => format!("{name} {text}\n"),
                    1 => format!("{name}{{}} {text} 1395066363000\n"),
                    2 => format!("{name}{{x=\"{escaped}\"}} {text}\n"),
                    _ => format!("{name} {{ x = \"{escaped}\" , }}\t{text}\n"),
                });
                if name == "a" {
                    match number {
                        Some(number) => expected = Some(expected.unwrap_or(0.0) + number),
                        None => valid = false,
                    }
                }
            }
            let selector = Selector::parse("a").unwrap();
            let result = sum_selected(&page, &selector, TextFormat::Prometheus);
            prop_assert_eq!(result.is_ok(), valid, "{}", page);
            if let Ok(sum) = result {
                let bits = |it: Option<f64>| it.map(|it| if it.is_nan() { 1 } else { it.to_bits() });
                prop_assert_eq!(bits(sum.value), bits(expected), "{}", page);
            }
        }

        #[test]
        fn any_text_gives_a_sum_or_an_error(text in "(a|[a{}=\"\\\\#., \n0-9a-z])*") {
            let _ = sum_selected(&text, &Selector::parse("a").unwrap(), TextFormat::OpenMetrics);
        }
    }
}
