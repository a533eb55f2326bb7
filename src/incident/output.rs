//! Groups lines of output by template, as Drain does (He, Zhu, Zheng and Lyu, "Drain: An Online Log
//! Parsing Approach with Fixed Depth Tree", ICWS 2017): lines of one length with one first word share a
//! template where half of their words are the same. Words that differ, or have digits, are `<*>`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::incident::facts::OutputGroup;
use crate::incident::text::clean_text;

/// Templates that are kept of one release.
const TEMPLATES_MAX: usize = 500;
/// Groups that a document shows.
const GROUPS_MAX: usize = 20;
/// Words of a line that count.
const WORDS_MAX: usize = 40;
/// Characters of a line that count.
const LINE_MAX: usize = 240;
/// Share of equal words from which two lines have one template.
const SAME_TEMPLATE: f64 = 0.5;
/// Share of equal words from which a line is no new one, although its template differs.
const SAME_LINE: f64 = 0.7;
const ANY: &str = "<*>";

/// The templates of one release.
#[derive(Debug, Default)]
struct Templates {
    /// By their key.
    groups: BTreeMap<Key, Vec<Template>>,
    count: usize,
}

/// What lines with one template share: the number of words, the first one, and the status of a failed
/// HTTP request.
type Key = (usize, String, Option<String>);

#[derive(Debug)]
struct Template {
    words: Vec<String>,
    count: u64,
    example: String,
    /// Whether another exception followed from it.
    is_cause: bool,
}

/// What Python prints between an exception and the one that followed from it.
const CHAINED: [&str; 2] = [
    "The above exception was the direct cause of the following exception",
    "During handling of the above exception, another exception occurred",
];
/// What the JVM prints before the exception from which another one followed.
const CAUSED_BY: &str = "Caused by: ";

/// Groups what a release printed. `previous` is what the release before it printed, if that is known: a
/// line is new where that has none like it. Errors come first, of these the new ones, of these the causes
/// of others.
pub fn group_output<'a>(
    lines: impl IntoIterator<Item = &'a str>,
    previous: Option<&mut dyn Iterator<Item = &'a str>>,
) -> Vec<OutputGroup> {
    let known = previous.map(Templates::of);
    let templates = Templates::of(lines).groups.into_values().flatten();
    let ranked = templates.map(|it| {
        let rank = error_rank(&it.example);
        let group = OutputGroup {
            is_new: known.as_ref().is_some_and(|known| !known.has(&it.words)),
            template: it.words.join(" "),
            is_error: rank > 1,
            example: it.shown(),
            count: it.count,
        };
        ((rank, it.is_cause), group)
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, it)| {
        std::cmp::Reverse((it.is_new && it.is_error, it.is_error, it.is_new, *rank, it.count))
    });
    ranked.into_iter().map(|(_, it)| it).take(GROUPS_MAX).collect()
}

impl Template {
    /// One of the lines, without the words that only this one had. Values are what differs anyway.
    fn shown(&self) -> String {
        let is_value = |word: &str| word.bytes().any(|it| it.is_ascii_digit());
        if !self.words.iter().any(|it| it == ANY) || self.count == 1 {
            return self.example.clone();
        }
        let mut words = self.words.iter();
        let shown = self.example.split_whitespace().map(|word| match words.next() {
            Some(template) if template == ANY && !is_value(word) => ANY,
            _ => word,
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

impl Templates {
    fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut templates = Self::default();
        let mut lines = lines.into_iter().filter(|it| !it.trim().is_empty()).peekable();
        while let Some(line) = lines.next() {
            let next = lines.peek().copied().unwrap_or_default();
            let is_cause = CHAINED.iter().any(|it| next.contains(it)) || line.contains(CAUSED_BY);
            templates.add(line, is_cause);
        }
        templates
    }

    fn add(&mut self, line: &str, is_cause: bool) {
        let example = clean_text(&without_json(line), LINE_MAX);
        let words = words(&example);
        let Some(key) = key(&words) else { return };
        let group = self.groups.entry(key).or_default();
        let best = group
            .iter_mut()
            .map(|it| (similarity(&it.words, &words), it))
            .filter(|(same, _)| *same >= SAME_TEMPLATE)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        match best {
            Some((_, template)) => {
                template.count += 1;
                template.is_cause |= is_cause;
                for (known, word) in template.words.iter_mut().zip(words) {
                    if *known != word {
                        ANY.clone_into(known);
                    }
                }
            }
            None if self.count < TEMPLATES_MAX => {
                self.count += 1;
                group.push(Template { words, count: 1, example, is_cause });
            }
            None => (),
        }
    }

    fn has(&self, words: &[String]) -> bool {
        let Some(key) = key(words) else { return true };
        let Some(group) = self.groups.get(&key) else { return false };
        group.iter().any(|it| {
            let fits =
                it.words.iter().zip(words).all(|(known, word)| known == ANY || known == word);
            fits || similarity(&it.words, words) >= SAME_LINE
        })
    }
}

fn key(words: &[String]) -> Option<Key> {
    let status = words.iter().find(|it| is_failed_status(it));
    Some((words.len(), words.first()?.clone(), status.cloned()))
}

fn is_failed_status(word: &str) -> bool {
    matches!(word.parse(), Ok(400..=599_u16))
}

fn similarity(a: &[String], b: &[String]) -> f64 {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    same as f64 / a.len().max(1) as f64
}

/// The words of a line. One with digits is a value, except the status of a failed HTTP request.
fn words(line: &str) -> Vec<String> {
    let word = |word: &str| {
        let has_digits = word.bytes().any(|it| it.is_ascii_digit());
        if has_digits && !is_failed_status(word) { ANY.to_owned() } else { word.to_owned() }
    };
    line.split_whitespace().take(WORDS_MAX).map(word).collect()
}

/// Of a line that is a JSON object, as structured loggers write: level, message and error.
fn without_json(line: &str) -> String {
    let object = line.trim_start().starts_with('{').then(|| serde_json::from_str(line));
    let Some(Ok(Value::Object(object))) = object else { return line.to_owned() };
    let parts =
        [["level", "severity", "lvl"], ["msg", "message", "event"], ["error", "err", "exception"]];
    let found = parts.iter().filter_map(|keys| {
        keys.iter().find_map(|key| match object.get(*key)? {
            Value::String(text) => Some(text.clone()),
            Value::Object(inner) => inner.get("message")?.as_str().map(str::to_owned),
            _ => None,
        })
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() { line.to_owned() } else { found.join(" ") }
}

/// How much a line looks like an error: 3 names one, 2 mentions one, 1 warns.
fn error_rank(line: &str) -> u8 {
    const MENTIONS: [&str; 16] = [
        "error",
        "exception",
        "traceback",
        "fatal",
        "panic",
        "panicked",
        "failed",
        "failure",
        "fail",
        "killed",
        "refused",
        "denied",
        "oom-kill",
        "critical",
        "abort",
        "aborted",
    ];
    let mut rank = 0;
    for word in line.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_') {
        let lower = word.to_ascii_lowercase();
        let is_name = word.len() > 6
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && (word.ends_with("Error") || word.ends_with("Exception"));
        rank = rank.max(match lower.as_str() {
            _ if is_name => 3,
            it if MENTIONS.contains(&it) => 2,
            it if it.starts_with("warn") => 1,
            _ => 0,
        });
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(lines: &[&str], previous: Option<&[&str]>) -> Vec<OutputGroup> {
        match previous {
            Some(known) => group_output(lines.iter().copied(), Some(&mut known.iter().copied())),
            None => group_output(lines.iter().copied(), None),
        }
    }

    #[test]
    fn the_cause_of_a_chain_of_exceptions_comes_first() {
        let error = "KeyError: 'region'\n\n\
                     The above exception was the direct cause of the following exception:\n\n\
                     Traceback (most recent call last):\n\
                     app.ToolError: Error executing tool forecast\n";
        // The end of an error whose beginning is cut off.
        let output = format!("app.ToolError: Error executing tool forecast\n{}", error.repeat(9));
        let groups = group_output(output.lines(), Some(&mut ["ready"].into_iter()));
        assert_eq!(groups[0].example, "KeyError: 'region'", "{groups:?}");
    }

    #[test]
    fn the_new_error_comes_first() {
        let known =
            ["INFO serving on 8401", "INFO call 12 of ada took 3 ms", "ERROR upstream 7 late"];
        let lines = [
            "INFO serving on 8402",
            "INFO call 90 of bob took 4 ms",
            "INFO call 91 of eve took 9 ms",
            "INFO cache is cold",
            "ERROR upstream 9 late",
            "Traceback (most recent call last):",
            "  File \"/srv/v2/server.py\", line 14, in forecast",
            "KeyError: 'region'",
            "KeyError: 'region'",
        ];
        let groups = groups(&lines, Some(&known));
        let first = &groups[0];
        assert_eq!((first.example.as_str(), first.count), ("KeyError: 'region'", 2));
        assert!(first.is_new && first.is_error);
        let of = |start: &str| groups.iter().find(|it| it.example.starts_with(start)).unwrap();
        assert!(!of("INFO serving").is_new && !of("INFO call").is_new && !of("ERROR").is_new);
        assert_eq!(of("INFO call").template, "INFO call <*> of <*> took <*> ms");
        assert!(of("INFO cache").is_new && !of("INFO cache").is_error);
    }

    #[test]
    fn nothing_is_new_where_the_previous_output_is_unknown() {
        let groups = groups(&["KeyError: 'region'"], None);
        assert!(!groups[0].is_new && groups[0].is_error);
    }

    #[test]
    fn structured_lines_and_statuses_are_compared_by_what_they_mean() {
        let known = [r#"{"ts":"1","level":"info","msg":"call done"}"#, "POST /mcp 200 3ms"];
        let lines = [
            r#"{"ts":"2","level":"info","msg":"call done"}"#,
            r#"{"ts":"3","level":"error","msg":"call failed","error":{"message":"no such table: city"}}"#,
            "POST /mcp 500 4ms",
            "POST /mcp 200 4ms",
        ];
        let groups = groups(&lines, Some(&known));
        assert_eq!(groups[0].example, "error call failed no such table: city");
        let new: Vec<_> = groups.iter().filter(|it| it.is_new).map(|it| it.count).collect();
        assert_eq!(new, [1, 1], "{groups:?}");
    }

    #[test]
    fn no_seeded_secret_is_in_a_group() {
        let seeded = include_str!("secrets.txt").lines();
        let seeded = seeded.filter_map(|it| it.split_once(" :: "));
        let mut count = 0;
        for (secret, text) in seeded.filter(|(secret, _)| !secret.starts_with('#')) {
            let json = serde_json::json!({"level": "error", "msg": text}).to_string();
            for line in [text, &json] {
                let shown = serde_json::to_string(&groups(&[line, line], None)).unwrap();
                assert!(!shown.contains(secret), "{line} -> {shown}");
                count += 1;
            }
        }
        assert!(count >= 100, "{count}");
    }

    #[test]
    fn a_flood_is_bounded_and_secrets_are_masked() {
        let lines: Vec<_> = (0..5_000)
            .map(|it| {
                let word: String = std::iter::repeat_n('x', it % 700 + 1).collect();
                format!("{word} password=hunter2hunter2 {}", "y ".repeat(it % 60))
            })
            .collect();
        let groups = group_output(lines.iter().map(String::as_str), None);
        assert_eq!(groups.len(), GROUPS_MAX);
        let json = serde_json::to_string(&groups).unwrap();
        assert!(!json.contains("hunter2") && json.len() < 64 * 1024, "{}", json.len());
    }

    #[test]
    fn a_line_that_stands_for_many_shows_only_what_they_share() {
        let lines =
            ["ERROR KeyError: 'region' in alerts id=7", "ERROR KeyError: 'region' in book id=8"];
        let groups = group_output(lines, None);
        assert_eq!((groups.len(), groups[0].count), (1, 2));
        assert_eq!(groups[0].example, "ERROR KeyError: 'region' in <*> id=7");
        assert_eq!(group_output(lines.into_iter().take(1), None)[0].example, lines[0]);
    }
}
