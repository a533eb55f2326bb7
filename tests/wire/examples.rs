//! Values with every field set, and values with as few as possible. No `..Default`: a new field
//! without an example does not compile.

use std::collections::{BTreeMap, BTreeSet};

use rollbackd::model::{
    ActiveUsers, Actor, Arm, ArmNumbers, Basis, BlockSources, BreakingChange, CarriedOver,
    Comparison, ComparisonRule, Contract, ContractDiff, ContractPart, Counts, DrainCost, Finding,
    Hold, MigrationRefused, Moment, ObjectiveNumbers, RampChoice, RampReason, RampStep, Release,
    ReleaseLoad, ReleaseNumber, Rule, Severity, Slot, SourceCounts, ToolSchema, TrialCell, Verdict,
};

pub(crate) fn words(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(crate) fn release(number: u32) -> Release {
    Release {
        version: format!("v{number}"),
        number: ReleaseNumber(number),
        slot: Slot("green".to_owned()),
        artifact: Some(format!("/opt/weather/v{number}")),
        digest: Some("sha256:0a1b".to_owned()),
        environment: BTreeMap::from([("LOG_LEVEL".to_owned(), "debug".to_owned())]),
        same_version: false,
    }
}

pub(crate) fn bare_release(number: u32) -> Release {
    Release { artifact: None, digest: None, environment: BTreeMap::new(), ..release(number) }
}

pub(crate) fn base() -> CarriedOver {
    CarriedOver {
        active: Some(release(6)),
        warm: None,
        hold: Some(hold(Some(actor()))),
        quarantine: vec!["v5 (/opt/weather/v5)".to_owned()],
        rollbacks: vec![Moment(1_700_000_000_000)],
        ready_ms: Vec::new(),
        ramped: false,
    }
}

pub(crate) fn actor() -> Actor {
    Actor { uid: 1000, pid: 4242, user: None }
}

pub(crate) fn hold(by: Option<Actor>) -> Hold {
    Hold { by, because: "a migration runs".to_owned() }
}

pub(crate) fn verdict(finding: Finding) -> Verdict {
    Verdict {
        release: ReleaseNumber(7),
        finding,
        because: "availability: 62 of 318 requests bad".to_owned(),
        basis: None,
        onset: Moment(1_700_000_100_000),
        failure_rate_lower: 0.165,
        request_rate: 12.5,
    }
}

pub(crate) fn breach() -> Verdict {
    verdict(Finding::Breach(Severity::Critical))
}

/// All that a basis can hold.
pub(crate) fn breach_with_basis() -> Verdict {
    let arm = |failed| ArmNumbers { users: 11, requests: 804, failed };
    let basis = Basis {
        rule: Rule::BrokenObjective,
        objective: Some(ObjectiveNumbers {
            name: "availability".to_owned(),
            requests: 318,
            bad: 62,
            allowed: 0.005,
            allowed_as_before: true,
            e_value: 2230.5,
            threshold: 1667.0,
        }),
        comparison: Some(Comparison {
            rule: ComparisonRule::FailsLess,
            e_value: Some(1.5),
            threshold: Some(10.0),
            warm: (1200, 3),
            shadow: (40, 0),
            warm_rate_upper: Some(0.0125),
            failed_probe: Some("connection refused".to_owned()),
        }),
        arms: Some([arm(0), arm(46)]),
    };
    Verdict { basis: Some(Box::new(basis)), ..breach() }
}

pub(crate) fn load() -> ReleaseLoad {
    ReleaseLoad { sessions: 9, pinned: 2, in_flight: 3, request_rate: 12.5, mean_session_s: 61.5 }
}

pub(crate) fn bare_load() -> ReleaseLoad {
    ReleaseLoad { pinned: 0, ..load() }
}

/// Every reason that prevents the migration of a session.
pub(crate) fn refusals() -> Vec<(&'static str, MigrationRefused)> {
    one_of_each!(MigrationRefused;
        MigrationRefused::Protocol => "protocol" MigrationRefused::Protocol;
        MigrationRefused::Capability => "capability" MigrationRefused::Capability;
        MigrationRefused::PendingRequest => "pending request" MigrationRefused::PendingRequest;
        MigrationRefused::LiveTask => "live task" MigrationRefused::LiveTask;
        MigrationRefused::Credentials => "credentials" MigrationRefused::Credentials;
        MigrationRefused::OpenFailed => "target failed" MigrationRefused::OpenFailed;
        MigrationRefused::StateNotRestorable => "hard state" MigrationRefused::StateNotRestorable;
        MigrationRefused::OpeningUnknown => "unknown" MigrationRefused::OpeningUnknown;
    )
}

pub(crate) fn drain_cost() -> DrainCost {
    DrainCost {
        error_responses: 1,
        sessions_ended: 2,
        streams_closed: 3,
        requests_replayed: 4,
        responses_lost: 5,
        sessions_migrated: 6,
        sessions_to_migrate: 7,
        server_state_at_risk: true,
        sessions_not_migrated: refusals()
            .into_iter()
            .map(|(_, refusal)| refusal)
            .zip(1..)
            .collect(),
    }
}

pub(crate) fn bare_drain_cost() -> DrainCost {
    DrainCost { error_responses: 1, sessions_ended: 2, streams_closed: 3, ..DrainCost::default() }
}

pub(crate) fn parts() -> Vec<(&'static str, ContractPart)> {
    one_of_each!(ContractPart;
        ContractPart::Protocol => "protocol" ContractPart::Protocol;
        ContractPart::Capability => "capability" ContractPart::Capability;
        ContractPart::Tool => "tool" ContractPart::Tool;
        ContractPart::Prompt => "prompt" ContractPart::Prompt;
        ContractPart::Resource => "resource" ContractPart::Resource;
    )
}

pub(crate) fn contract() -> Contract {
    let shape = ToolSchema {
        required: words(&["city"]),
        input_hash: "00000000000000aa".into(),
        output_hash: "bb".into(),
    };
    Contract {
        server: "weather 2".to_owned(),
        protocols: words(&["2025-11-25", "2026-07-28"]),
        capabilities: words(&["tools.listChanged"]),
        tools: words(&["forecast"]),
        read_only_tools: words(&["forecast"]),
        tool_schemas: BTreeMap::from([("forecast".to_owned(), shape)]),
        prompts: BTreeMap::from([("greet".to_owned(), words(&["name"]))]),
        resources: words(&["weather://{city}"]),
        incomplete: parts().into_iter().map(|(_, part)| part).collect(),
    }
}

pub(crate) fn changes() -> ContractDiff {
    let of_tool = |name: &str| BTreeMap::from([(ContractPart::Tool, words(&[name]))]);
    let how = BTreeMap::from([("forecast".to_owned(), "now requires day".to_owned())]);
    ContractDiff {
        servers: ("weather 1".to_owned(), "weather 2".to_owned()),
        added: of_tool("radar"),
        removed: of_tool("echo"),
        changed: BTreeMap::from([(ContractPart::Tool, how)]),
        breaking: vec![BreakingChange {
            part: ContractPart::Tool,
            name: "echo".to_owned(),
            change: "drops".to_owned(),
            calls: 5,
        }],
        not_compared: BTreeSet::from([ContractPart::Resource]),
    }
}

/// A different number for each count.
pub(crate) fn counts() -> Counts {
    Counts {
        ok: 1,
        server_fault: 2,
        tool_fault: 3,
        client_fault: 4,
        neutral: 5,
        slow: 6,
        with_latency: 7,
        repeatable: 8,
        repeatable_failed: 9,
        streams_ended: 10,
        streams_broken: 11,
        small: 0,
        slower: 0,
        given_up: 0,
        answered_late: 0,
    }
}

pub(crate) fn choice() -> RampChoice {
    let reason = RampReason::EnoughUsers(ActiveUsers { sessions: 213, clients: 0 });
    RampChoice { shares_ppm: vec![50_000, 250_000, 500_000], reason }
}

pub(crate) fn at_once() -> RampChoice {
    let users = ActiveUsers { sessions: 4, clients: 2 };
    let reason = RampReason::FewUsers { users, needed: 20 };
    RampChoice { shares_ppm: Vec::new(), reason }
}

pub(crate) fn step() -> RampStep {
    RampStep { step: 2, of: 3, share_ppm: 250_000, below_ppm: 312_500 }
}

pub(crate) fn sources() -> BlockSources {
    let source = SourceCounts { source: 7, call: 0x1c2d, counts: counts() };
    BlockSources {
        sources_active: 3,
        clients_active: 2,
        known_failing: counts(),
        sources: vec![source, SourceCounts { source: u64::MAX, ..source }],
        clients: vec![source],
    }
}

/// Requests of both arms of a trial.
pub(crate) fn cells() -> Vec<TrialCell> {
    let trial = TrialCell {
        arm: Arm::Trial,
        subject: 0x03f5_0000_0000_0000,
        client: 0x03f5_0000_0000_0000,
        call: 0x1c2d,
        second: 1_700,
        started: 1,
        failed: 0,
        excused: 0,
    };
    let control = TrialCell { arm: Arm::Control, subject: u64::MAX, client: u64::MAX, ..trial };
    vec![
        trial,
        control,
        TrialCell { failed: 2, started: 3, ..trial },
        TrialCell { subject: 0, excused: 1, ..trial },
    ]
}
