//! Configurations as operators write them, and what they are told about them.
//!
//! Each `tests/config/NAME.toml` has the problems it shows in `NAME.txt`; `UPDATE=1` writes them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[path = "support/json_schema.rs"]
mod json_schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use json_schema::fits;
use proptest::prelude::*;
use rollbackd::config::{
    self, Key, LoadedConfig, ProbeKind, ProblemCode, ProblemLevel, Problems, Shape,
};
use rollbackd::judge::{Indicator, SloSettings};

const EXAMPLE: &str = include_str!("../config.toml.example");

#[test]
fn every_file_reports_its_problems() {
    let mut wrong = Vec::new();
    for toml in config_files() {
        let file = toml.file_name().unwrap().to_string_lossy();
        let told = render_outcome(&config::parse(&file, &fs::read_to_string(&toml).unwrap()));
        let golden = toml.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &told).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(format!("{file} now tells:\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE=1 writes them down", wrong.join("\n"));
}

#[test]
fn every_problem_names_location_and_fix() {
    for toml in config_files() {
        let text = fs::read_to_string(&toml).unwrap();
        let problems = match config::parse("x", &text) {
            Ok(checked) => checked.warnings,
            Err(problems) => problems,
        };
        for problem in problems.iter() {
            let at = problem.span.clone().expect("a place");
            assert!(at.start <= at.end && at.end <= text.len(), "{problem:?}");
            assert!(!problem.help.is_empty(), "{problem:?}");
            assert!(!problem.message.is_empty(), "{problem:?}");
        }
    }
}

#[test]
fn example_config_is_valid() {
    let checked = config::parse("config.toml.example", EXAMPLE).unwrap_or_else(|it| panic!("{it}"));
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
}

#[test]
fn example_config_shows_the_defaults() {
    let shown = uncommented_example();
    assert!(shown.matches('\n').count() == EXAMPLE.matches('\n').count() && shown != EXAMPLE);
    let shown = config::parse("shown", &shown).unwrap_or_else(|it| panic!("{it}"));
    let left_out = config::parse("left out", EXAMPLE).unwrap_or_else(|it| panic!("{it}"));
    assert!(shown.warnings.is_empty(), "{}", shown.warnings);
    assert_eq!(shown.settings, left_out.settings);
}

/// Operators find settings in the example.
#[test]
fn example_config_lists_every_setting() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let calls = ["table.read(", "table.required("];
        for (start, call) in calls.iter().flat_map(|it| source.match_indices(it)) {
            let arguments = source.get(start + call.len()..).unwrap_or_default().trim_start();
            let key = arguments.strip_prefix('"').and_then(|rest| rest.split('"').next());
            let key = key.expect("a key");
            assert!(EXAMPLE.contains(&format!("{key} = ")), "{key}");
            count += 1;
        }
    }
    assert!(count > 35, "{count} settings found in the source");
}

#[test]
fn settings_have_their_configured_values() {
    let text = include_str!("config/fine.toml");
    let settings = config::parse("fine", text).unwrap_or_else(|it| panic!("{it}")).settings;
    let service = settings.services.get("weather").expect("the service");
    let objectives: Vec<_> = service
        .slo
        .objectives
        .iter()
        .map(|it| (it.indicator, it.error_budget, it.weight))
        .collect();
    let wanted = [
        (Indicator::Availability, 0.005, 0.85),
        (Indicator::Latency, 0.01, 0.15),
        (Indicator::ClientFaults, 0.05, 0.03),
        (Indicator::SlowerAnswers, 0.05, 0.03),
        (Indicator::Streams, 0.05, 0.02),
    ];
    assert_eq!(objectives, wanted);
    assert_eq!(service.policy.bake, Duration::from_mins(90));
    assert_eq!(service.slo.bake, service.policy.bake);
    assert_eq!(service.policy.target_check_timeout, Duration::from_secs(2));
    assert_eq!(service.limits.slow_after, Duration::from_millis(300));
    assert!(service.policy.observe && service.hosts.contains("mcp.example.org"));
    let ProbeKind::Http { path, status, field } = &service.probe.kind else {
        panic!("{:?}", service.probe.kind);
    };
    assert_eq!((path.as_str(), *status), ("/health", 204));
    assert_eq!(field.as_ref().expect("a field"), &("/status".to_owned(), "ok".to_owned()));
}

#[test]
fn what_is_not_configured_is_the_default_of_the_judge() {
    let config = config::parse("x", &example_with("")).unwrap();
    let slo = config.settings.services["weather"].slo.clone();
    let objectives = slo.objectives.clone();
    assert_eq!(slo, SloSettings { objectives, ..SloSettings::default() });
}

#[test]
fn percentages_are_parsed_exactly() {
    for (written, budget) in [("99.9%", 0.001), ("99.99%", 1e-4), ("99.5 %", 0.005), ("95%", 0.05)]
    {
        let text = example_with(&format!("objective = \"{written}\""));
        let checked = config::parse("x", &text).unwrap_or_else(|it| panic!("{it}"));
        let service = checked.settings.services.get("weather").expect("the service");
        assert_eq!(service.slo.objectives.first().map(|it| it.error_budget), Some(budget));
    }
}

#[test]
fn unreadable_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (folder.path().join("absent.toml"), ProblemCode::Unreadable),
        (folder.path().to_owned(), ProblemCode::Unreadable),
        (file("latin1.toml", b"[daemon]\nstate_dir = \"/\xe9\"\n"), ProblemCode::NotUtf8),
        (file("nul.toml", b"[daemon]\nstate_dir = \"/a\0b\"\n"), ProblemCode::Syntax),
        (file("escaped.toml", b"[daemon]\nstate_dir = \"/a\\u0000b\"\n"), ProblemCode::BadValue),
        (file("huge.toml", &vec![b'#'; (1 << 20) + 1]), ProblemCode::TooLarge),
        (PathBuf::from("/dev/zero"), ProblemCode::TooLarge),
    ];
    for (path, code) in cases {
        let problems = config::load(&path).expect_err("a problem");
        assert!(problems.iter().any(|it| it.code == code), "{problems}");
        assert!(problems.to_string().contains(&path.display().to_string()), "{problems}");
        assert!(problems.to_string().contains("help: "), "{problems}");
    }
    let path = file("good.toml", EXAMPLE.as_bytes());
    config::load(&path).unwrap_or_else(|it| panic!("{it}"));
}

#[test]
fn many_problems_are_truncated_and_counted() {
    let flood: String = (0..80_000).map(|n| format!("key{n}=1\n")).collect();
    let problems = config::parse("flood", &flood).expect_err("problems");
    assert!(problems.iter().count() <= 100);
    let told = problems.to_string();
    assert!(told.ends_with("more problems") && told.len() < 100_000, "{}", told.len());
    let long = format!("x = [{}]", "{a=1}, ".repeat(100_000));
    let told = config::parse("long", &long).expect_err("problems").to_string();
    assert!(told.len() < 5_000, "{}", told.len());
    let same = config::parse("same", &"x\n".repeat(100_000)).expect_err("problems");
    assert!(same.iter().count() <= 100);
    let deep = format!("x = {}", "[".repeat(500_000));
    let told = config::parse("deep", &deep).expect_err("problems").to_string();
    assert!(told.len() < 100_000, "{}", told.len());
}

#[test]
fn colors_are_only_used_on_a_terminal() {
    let problems = config::parse("x", "").expect_err("a problem");
    assert!(!problems.to_string().contains('\x1b'));
    assert!(problems.coloured().contains('\x1b'));
}

/// What fits the schema passes the checks, and the other way round.
#[test]
fn the_schema_has_the_ranges_and_words_of_the_checks() {
    let is_refused = |key: &Key, value: &str| {
        let Key { table, name, .. } = key;
        let text = example_with_key(table, &format!("{name} = {value}"));
        let problems = match config::parse("x", &text) {
            Ok(checked) => checked.warnings,
            Err(problems) => problems,
        };
        let setting = format!("`{name}`");
        let codes = [ProblemCode::OutOfRange, ProblemCode::BadValue];
        problems.iter().any(|it| {
            let starts = it.message.starts_with(&setting) || it.message.contains("kind of notice");
            let is_error = it.level == ProblemLevel::Error;
            starts && is_error && codes.contains(&it.code)
        })
    };
    let mut count = 0;
    for key in config::keys() {
        let (fine, wrong): (Vec<String>, Vec<String>) = match key.shape {
            Shape::Word(words) => (
                words.iter().map(|word| format!("{word:?}")).collect(),
                vec!["\"nonsense\"".to_owned()],
            ),
            Shape::Words(words) => (vec![format!("{words:?}")], vec!["[\"nonsense\"]".to_owned()]),
            Shape::Integer(low, high) => (
                vec![low.to_string(), high.to_string()],
                [low.checked_sub(1), high.checked_add(1).filter(|it| i64::try_from(*it).is_ok())]
                    .iter()
                    .flatten()
                    .map(u64::to_string)
                    .collect(),
            ),
            _ => continue,
        };
        count += 1;
        for value in fine {
            assert!(!is_refused(key, &value), "{} {} = {value}", key.table, key.name);
        }
        for value in wrong {
            assert!(is_refused(key, &value), "{} {} = {value}", key.table, key.name);
        }
    }
    assert!(count > 20, "{count}");
}

/// What the checks take fits the schema.
#[test]
fn valid_configurations_fit_the_schema() {
    let schema = config::schema();
    let mut texts = vec![EXAMPLE.to_owned(), uncommented_example()];
    texts.extend(config_files().iter().filter_map(|path| {
        let text = fs::read_to_string(path).unwrap();
        config::parse("x", &text).is_ok().then_some(text)
    }));
    assert!(texts.len() > 5, "{}", texts.len());
    for text in texts {
        let value: serde_json::Value = toml::from_str(&text).unwrap();
        fits(&value, &schema, "").unwrap_or_else(|why| panic!("{why}\n{text}"));
    }
    for (text, wanted) in [
        ("[service.x]\nlisten = 1", "/service/x/listen"),
        ("[service.x]\nlisten = \"a:1\"\nruntime = \"command\"\nslots = {}", "/service/x/slots"),
        ("[service.x]\nnonsense = 1", "nonsense"),
        ("[daemon]", "service"),
        ("service = {}\n[incidents]\nkeep = 0", "/incidents/keep"),
    ] {
        let value: serde_json::Value = toml::from_str(text).unwrap();
        let why = fits(&value, &schema, "").expect_err("it does not fit");
        assert!(why.contains(wanted), "{text}: {why}");
    }
}

#[test]
fn problems_are_also_data() {
    let text = "[daemon]\nstate_dir = 1\n[service.größe]\n";
    let problems = config::parse("x.toml", text).expect_err("problems");
    let reports: Vec<_> =
        problems.reports().iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    assert_eq!(
        reports.first(),
        Some(&serde_json::json!({
            "file": "x.toml", "level": "error", "code": "wrong-type",
            "message": "`state_dir` is a whole number, not a string",
            "help": "write it between quotes",
            "line": 2, "column": 13, "end_line": 2, "end_column": 14,
        }))
    );
    assert_eq!(reports.len(), problems.iter().count());
    let absent = config::load(Path::new("/nonexistent.toml")).expect_err("a problem");
    let report = serde_json::to_value(absent.reports().first().unwrap()).unwrap();
    assert!(report.get("line").is_none() && report["code"] == "unreadable", "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_parses_without_panic(text in "(\\PC|[\\[\\]{}=\"'#.,:\n\r\t 0-9a-z])*") {
        let _told = render_outcome(&config::parse("any", &text));
    }

    #[test]
    fn damaged_example_parses_without_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[\\[\\]{}=\"'#.,:\n% 0-9a-zäß天\u{0}]{0,6}"), 1..6)
    ) {
        let mut text: Vec<char> = uncommented_example().chars().collect();
        for (at, gone, new) in damage {
            let from = at.index(text.len());
            let to = (from + gone).min(text.len());
            text.splice(from..to, new.chars());
        }
        let _told = render_outcome(&config::parse("damaged", &text.into_iter().collect::<String>()));
    }

    #[test]
    fn any_value_parses_without_panic(key in 0_usize..40, value in VALUES) {
        let text = uncommented_example();
        let lines: Vec<_> = text.lines().collect();
        let settings: Vec<_> = lines.iter().filter(|it| it.contains(" = ") && !it.starts_with('#')).collect();
        let line = settings.get(key % settings.len()).expect("a line");
        let name = line.split(' ').next().expect("a key");
        let changed = text.replacen(**line, &format!("{name} = {value}"), 1);
        let _told = render_outcome(&config::parse("value", &changed));
    }
}

/// Values of every type, at the edges.
const VALUES: &str = "(0|-1|9223372036854775807|1e300|-0.0|nan|inf|true|\\[\\]|\\{\\}|\"\"|1979-05-27)|\
    \"[0-9]{1,22}(ns|ms|s|m|h|d|y|%|MiB|GiB|B)\"|\"[0-9.:%/{}\\[\\]a-z-]{0,12}\"";

fn render_outcome(outcome: &Result<LoadedConfig, Problems>) -> String {
    let problems = match outcome {
        Ok(checked) => &checked.warnings,
        Err(problems) => problems,
    };
    let fatal = problems.iter().any(|it| it.level == ProblemLevel::Error);
    assert_eq!(fatal, outcome.is_err(), "{problems}");
    let end = if fatal { "refused" } else { "fine" };
    if problems.is_empty() { format!("{end}\n") } else { format!("{problems}\n\n{end}\n") }
}

fn config_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "toml")).collect();
    files.sort();
    assert!(files.len() >= 12, "{} files", files.len());
    files
}

/// The example with its defaults in force.
fn uncommented_example() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|it: char| it.is_ascii_lowercase()) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    EXAMPLE.lines().map(line).collect()
}

fn example_with(setting: &str) -> String {
    format!(
        "[service.weather]\nlisten = \"127.0.0.1:8080\"\nruntime = \"external\"\n\
         slots = {{ blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }}\n{setting}\n"
    )
}

/// A configuration with one more setting in a table.
fn example_with_key(table: &str, setting: &str) -> String {
    let name = setting.split(' ').next().unwrap_or_default();
    let header = table.replace("service.NAME", "service.weather").replace("NAME", "pager");
    let required = [
        ("listen", "listen = \"127.0.0.1:8080\""),
        ("runtime", "runtime = \"systemd\"\nunit = \"mcp@.service\""),
        ("slots", "slots = { blue = \"127.0.0.1:9001\", green = \"127.0.0.1:9002\" }"),
    ];
    let mut text = "[service.weather]\n".to_owned();
    for (key, line) in required {
        if table != "[service.NAME]" || key != name {
            text.push_str(&format!("{line}\n"));
        }
    }
    match table {
        "[service.NAME]" => text + setting + "\n",
        _ if name == "status" => format!("{text}{header}\nkind = \"http\"\n{setting}\n"),
        _ => format!("{text}{header}\n{setting}\n"),
    }
}
