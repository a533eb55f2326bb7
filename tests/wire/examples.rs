//! Values with every field set, and values with as few as possible. No `..Default`: a new field does
//! not compile without an example.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd::model::{
    Actor, Base, Break, Changes, Contract, Counts, Finding, Hold, Load, Moment, Number, Part,
    Refusal, Release, Severity, Shape, Slot, Toll, Verdict,
};

pub(crate) fn words(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn release(number: u32) -> Release {
    Release {
        version: format!("v{number}"),
        number: Number(number),
        slot: Slot("green".to_owned()),
        artifact: Some(format!("/opt/weather/v{number}")),
        digest: Some("sha256:0a1b".to_owned()),
        set: BTreeMap::from([("LOG_LEVEL".to_owned(), "debug".to_owned())]),
    }
}

pub(crate) fn bare_release(number: u32) -> Release {
    Release { artifact: None, digest: None, set: BTreeMap::new(), ..release(number) }
}

pub(crate) fn base() -> Base {
    Base {
        active: Some(release(6)),
        hold: Some(hold(Some(actor()))),
        quarantine: vec!["v5 (/opt/weather/v5)".to_owned()],
        rollbacks: vec![Moment(1_700_000_000_000)],
    }
}

pub(crate) fn actor() -> Actor {
    Actor { uid: 1000, pid: 4242 }
}

pub(crate) fn hold(by: Option<Actor>) -> Hold {
    Hold { by, because: "a migration runs".to_owned() }
}

pub(crate) fn verdict(finding: Finding) -> Verdict {
    Verdict {
        release: Number(7),
        finding,
        because: "availability: 62 of 318 requests bad".to_owned(),
        onset: Moment(1_700_000_100_000),
        failing: 0.165,
        rate: 12.5,
    }
}

pub(crate) fn breach() -> Verdict {
    verdict(Finding::Breach(Severity::Critical))
}

pub(crate) fn load() -> Load {
    Load { sessions: 9, bound: 2, in_flight: 3, rate: 12.5, life: 61.5 }
}

pub(crate) fn bare_load() -> Load {
    Load { bound: 0, ..load() }
}

/// Every reason for which a session stays.
pub(crate) fn refusals() -> Vec<(&'static str, Refusal)> {
    one_of_each!(Refusal;
        Refusal::Protocol => "protocol" Refusal::Protocol;
        Refusal::Capability => "capability" Refusal::Capability;
        Refusal::PendingRequest => "pending request" Refusal::PendingRequest;
        Refusal::LiveTask => "live task" Refusal::LiveTask;
        Refusal::Credentials => "credentials" Refusal::Credentials;
        Refusal::TargetFailed => "target failed" Refusal::TargetFailed;
        Refusal::HardState => "hard state" Refusal::HardState;
        Refusal::Unknown => "unknown" Refusal::Unknown;
    )
}

pub(crate) fn toll() -> Toll {
    Toll {
        answered: 1,
        ended: 2,
        streams: 3,
        replayed: 4,
        lost: 5,
        moved: 6,
        waiting: 7,
        soft: true,
        kept: refusals().into_iter().map(|(_, refusal)| refusal).zip(1..).collect(),
    }
}

pub(crate) fn bare_toll() -> Toll {
    Toll { answered: 1, ended: 2, streams: 3, ..Toll::default() }
}

pub(crate) fn parts() -> Vec<(&'static str, Part)> {
    one_of_each!(Part;
        Part::Protocol => "protocol" Part::Protocol;
        Part::Capability => "capability" Part::Capability;
        Part::Tool => "tool" Part::Tool;
        Part::Prompt => "prompt" Part::Prompt;
        Part::Resource => "resource" Part::Resource;
    )
}

pub(crate) fn contract() -> Contract {
    let shape =
        Shape { required: words(&["city"]), input: "00000000000000aa".into(), output: "bb".into() };
    Contract {
        server: "weather 2".to_owned(),
        protocols: words(&["2025-11-25", "2026-07-28"]),
        capabilities: words(&["tools.listChanged"]),
        tools: words(&["forecast"]),
        safe_tools: words(&["forecast"]),
        shapes: BTreeMap::from([("forecast".to_owned(), shape)]),
        prompts: BTreeMap::from([("greet".to_owned(), words(&["name"]))]),
        resources: words(&["weather://{city}"]),
        unknown: parts().into_iter().map(|(_, part)| part).collect(),
    }
}

pub(crate) fn changes() -> Changes {
    let of_tool = |name: &str| BTreeMap::from([(Part::Tool, words(&[name]))]);
    let how = BTreeMap::from([("forecast".to_owned(), "now requires day".to_owned())]);
    Changes {
        servers: ("weather 1".to_owned(), "weather 2".to_owned()),
        added: of_tool("radar"),
        removed: of_tool("echo"),
        changed: BTreeMap::from([(Part::Tool, how)]),
        breaks: vec![Break {
            part: Part::Tool,
            name: "echo".to_owned(),
            how: "drops".to_owned(),
            calls: 5,
        }],
        unknown: BTreeSet::from([Part::Resource]),
    }
}

/// Each count with a number of its own.
pub(crate) fn counts() -> Counts {
    Counts {
        ok: 1,
        server_fault: 2,
        tool_fault: 3,
        client_fault: 4,
        neutral: 5,
        slow: 6,
        timed: 7,
        safe: 8,
        safe_bad: 9,
        streams: 10,
        broken: 11,
    }
}
