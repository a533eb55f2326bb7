//! The words in timelines, in `status` and in metric labels.

use std::fmt::{Debug, Write as _};

use rollbackd::decide::{PendingRollback, Phase, Rollback, SteadyWatch};
use rollbackd::judge::Indicator;
use rollbackd::model::{
    Actor, Effect, Era, Finding, Guard, Moment, Outcome, ProbeResult, ReleaseLoad, Severity,
    Strategy, Trigger,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::examples::{bare_load, bare_release, parts, refusals, step};
use crate::golden::hold;

fn strategies() -> Vec<(&'static str, Strategy)> {
    one_of_each!(Strategy;
        Strategy::Drain => "drain" Strategy::Drain;
        Strategy::Cut => "cut" Strategy::Cut;
    )
}

fn severities() -> Vec<(&'static str, Severity)> {
    one_of_each!(Severity;
        Severity::Degraded => "degraded" Severity::Degraded;
        Severity::Critical => "critical" Severity::Critical;
        Severity::Down => "down" Severity::Down;
    )
}

fn findings() -> Vec<(&'static str, Finding)> {
    one_of_each!(Finding;
        Finding::Undecided => "undecided" Finding::Undecided;
        Finding::Healthy => "healthy" Finding::Healthy;
        Finding::Breach(_) =>
            "degraded" Finding::Breach(Severity::Degraded),
            "critical" Finding::Breach(Severity::Critical),
            "down" Finding::Breach(Severity::Down);
        Finding::SharedOutage => "shared outage" Finding::SharedOutage;
        Finding::Measuring => "measuring" Finding::Measuring;
        Finding::Unattributed => "unattributed" Finding::Unattributed;
        Finding::OneUser => "one user" Finding::OneUser;
        Finding::Differs => "differs" Finding::Differs;
        Finding::NoData => "no data" Finding::NoData;
    )
}

fn guards() -> Vec<(&'static str, Guard)> {
    one_of_each!(Guard;
        Guard::Observe => "observe" Guard::Observe;
        Guard::Hold => "hold" Guard::Hold;
        Guard::Freeze => "freeze" Guard::Freeze;
        Guard::Limit => "limit" Guard::Limit;
        Guard::SharedOutage => "shared outage" Guard::SharedOutage;
        Guard::NoBaseline => "no baseline" Guard::NoBaseline;
        Guard::NoData => "no data" Guard::NoData;
        Guard::NoWarm => "no previous release" Guard::NoWarm;
        Guard::OneUser => "one user" Guard::OneUser;
        Guard::Differs => "different answers" Guard::Differs;
        Guard::AfterBake => "the bake is over" Guard::AfterBake;
        Guard::Ramp => "ramp not complete" Guard::Ramp;
    )
}

fn classes() -> Vec<(&'static str, Outcome)> {
    one_of_each!(Outcome;
        Outcome::Ok => "ok" Outcome::Ok;
        Outcome::ServerFault => "server fault" Outcome::ServerFault;
        Outcome::ToolFault => "tool fault" Outcome::ToolFault;
        Outcome::ClientFault => "client fault" Outcome::ClientFault;
        Outcome::Neutral => "neutral" Outcome::Neutral;
    )
}

fn eras() -> Vec<(&'static str, Era)> {
    one_of_each!(Era;
        Era::Legacy => "legacy" Era::Legacy;
        Era::Modern => "modern" Era::Modern;
    )
}

fn replies() -> Vec<(&'static str, ProbeResult)> {
    one_of_each!(ProbeResult;
        ProbeResult::Ok => "ok" ProbeResult::Ok;
        ProbeResult::TimedOut => "late" ProbeResult::TimedOut;
        ProbeResult::Refused => "refused" ProbeResult::Refused;
        ProbeResult::Unexpected(_) => "wrong" ProbeResult::Unexpected("status 500".to_owned());
    )
}

fn objectives() -> Vec<(&'static str, Indicator)> {
    one_of_each!(Indicator;
        Indicator::Availability => "availability" Indicator::Availability;
        Indicator::Latency => "latency" Indicator::Latency;
        Indicator::Tools => "tools" Indicator::Tools;
        Indicator::ClientFaults => "calls" Indicator::ClientFaults;
        Indicator::SmallAnswers => "small answers" Indicator::SmallAnswers;
        Indicator::SlowerAnswers => "slower answers" Indicator::SlowerAnswers;
        Indicator::Streams => "streams" Indicator::Streams;
        Indicator::Scraped => "scraped" Indicator::Scraped;
    )
}

/// The text of each effect in the `then` field of a timeline entry.
fn effects() -> Vec<(&'static str, Effect)> {
    let v1 = || bare_release(1);
    one_of_each!(Effect;
        Effect::KeepRunning(_) => "keep" Effect::KeepRunning(v1());
        Effect::Start(_) => "start" Effect::Start(v1());
        Effect::Probe(_) => "probe" Effect::Probe(v1());
        Effect::Route(_) => "route" Effect::Route(v1());
        Effect::Assign(..) => "assign" Effect::Assign(v1(), bare_release(2), step());
        Effect::Drain(..) => "drain" Effect::Drain(v1(), Moment(1));
        Effect::Cut(_) => "cut" Effect::Cut(v1());
        Effect::Retire(_) => "retire" Effect::Retire(v1());
        Effect::Detach(_) => "let go" Effect::Detach(v1());
        Effect::Page(_) => "page" Effect::Page("wake up".to_owned());
    )
}

fn phases() -> Vec<(&'static str, Phase)> {
    let (v1, v2, at) = (|| bare_release(1), || bare_release(2), Moment(1));
    let load: ReleaseLoad = bare_load();
    let breach = || PendingRollback {
        bad: v2(),
        warm: v1(),
        trigger: Trigger::Operator {
            by: Actor::default(),
            strategy: Strategy::Drain,
            forced: false,
        },
        load,
        complete_by: at,
        until: at,
        ramp: None,
    };
    let strategy = Strategy::Drain;
    let back = || Rollback { bad: v2(), to: v1(), strategy, drain_until: at, until: at, tries: 0 };
    one_of_each!(Phase;
        Phase::Empty => "empty" Phase::Empty;
        Phase::Steady { .. } => "steady" Phase::Steady { active: v1(), warm: None, watch: SteadyWatch::On };
        Phase::Starting { .. } =>
            "starting" Phase::Starting { active: None, warm: None, new: v1(), until: at };
        Phase::Promoting { .. } =>
            "promoting" Phase::Promoting { from: None, to: v1(), until: at, tries: 0, ramp: None };
        Phase::Baking { .. } => "baking" Phase::Baking {
            active: v2(), warm: None, until: at, blocked: None, no_data_since: None, ramp: None,
        };
        Phase::Confirming(_) => "confirming" Phase::Confirming(breach());
        Phase::Reviving(_) => "reviving" Phase::Reviving(breach());
        Phase::Returning(_) => "returning" Phase::Returning(back());
        Phase::Emptying(_) => "emptying" Phase::Emptying(back());
        Phase::Recovering { .. } =>
            "recovering" Phase::Recovering { active: v1(), bad: v2(), until: at };
    )
}

/// One line for each value: `name  stored form  displayed form`.
fn table<T: Serialize>(all: &[(&str, T)], shown: impl Fn(&T) -> String) -> String {
    let written = |it: &T| serde_json::to_string(it).unwrap();
    all.iter().map(|(name, it)| format!("{name}  {}  {}\n", written(it), shown(it))).collect()
}

#[test]
fn every_word_is_as_it_was() {
    let shown = |all: Vec<(&str, String)>| -> String {
        all.iter().map(|(name, text)| format!("{name}  {text}\n")).collect()
    };
    let topics = [
        ("phase", shown(phases().iter().map(|(name, it)| (*name, it.name().to_owned())).collect())),
        ("guard", table(&guards(), ToString::to_string)),
        ("finding", table(&findings(), ToString::to_string)),
        ("severity", table(&severities(), ToString::to_string)),
        ("strategy", table(&strategies(), ToString::to_string)),
        ("class", table(&classes(), ToString::to_string)),
        ("era", table(&eras(), ToString::to_string)),
        ("part", table(&parts(), ToString::to_string)),
        ("reply", table(&replies(), ToString::to_string)),
        ("refusal", table(&refusals(), |it| it.label().to_owned())),
        ("effect", shown(effects().iter().map(|(name, it)| (*name, it.to_string())).collect())),
        (
            "objective",
            shown(objectives().iter().map(|(name, it)| (*name, it.name().to_owned())).collect()),
        ),
    ];
    let mut text = String::new();
    for (topic, lines) in topics {
        let _ = write!(text, "[{topic}]\n{lines}\n");
    }
    hold("words.txt", &text);
}

#[test]
fn old_words_are_still_read() {
    for section in include_str!("0.1.0/words.txt").split("\n\n").filter(|it| !it.is_empty()) {
        let (topic, lines) = section.split_once('\n').unwrap();
        match topic {
            "[guard]" => read(lines, &guards()),
            "[finding]" => read(lines, &findings()),
            "[severity]" => read(lines, &severities()),
            "[strategy]" => read(lines, &strategies()),
            "[class]" => read(lines, &classes()),
            "[era]" => read(lines, &eras()),
            "[part]" => read(lines, &parts()),
            "[reply]" => read(lines, &replies()),
            "[refusal]" => read(lines, &refusals()),
            // The daemon writes these words and never reads them.
            "[phase]" | "[effect]" | "[objective]" => (),
            _ => panic!("{topic} has no reader"),
        }
    }
}

#[track_caller]
fn read<T: DeserializeOwned + Debug>(lines: &str, examples: &[(&str, T)]) {
    let written = |line: &str| line.split("  ").take(2).collect::<Vec<_>>().join("  ");
    let old: Vec<_> = lines.lines().map(written).collect();
    crate::lines::still_read(&old.join("\n"), examples);
}
