//! The lines of a timeline, as stored on disk.

use std::fs;

use rollbackd::model::{
    Actor, CarriedOver, Effect, ExpectedFailures, Guard, Moment, OutsideLink, OutsideLinks,
    Release, Severity, Strategy, StrategyReason, TimelineEntry, TimelineEvent, Trigger, Waiver,
};
use rollbackd::record::{NewEntry, Room, Timeline, read_deploy};

use crate::examples::{
    actor, at_once, bare_drain_cost, bare_load, bare_release, base, breach, breach_with_basis,
    changes, choice, contract, drain_cost, hold, load, release, step,
};
use crate::golden::hold as hold_golden;
use crate::lines::still_read;

const BEGUN: Moment = Moment(1_700_000_000_000);

fn ordered() -> Trigger {
    Trigger::Operator { by: actor(), strategy: Strategy::Drain, forced: true }
}

fn decided(reason: StrategyReason) -> TimelineEvent {
    let (strategy, severity) = (Strategy::Cut, Severity::Critical);
    TimelineEvent::Decided { strategy, severity, ordered: false, reason: Some(reason) }
}

fn expected_failures() -> ExpectedFailures {
    ExpectedFailures {
        drain: 3.5,
        cut: 15.25,
        in_flight: 4,
        pinned_sessions: 9,
        ending_sessions: 1.25,
        session_cost: 9.0,
    }
}

/// At least one of each kind. `... least`: without the optional fields.
fn facts() -> Vec<(&'static str, TimelineEvent)> {
    one_of_each!(TimelineEvent;
        TimelineEvent::Deployed { .. } => "deployed" deployed(), "deployed least" deployed_least(),
            "deployed waived" deployed_waived();
        TimelineEvent::Replaced { .. } =>
            "found" TimelineEvent::Replaced { release: release(8), warm: Some(release(6)), carried_over: Box::new(base()) },
            "found least" TimelineEvent::Replaced { release: bare_release(8), warm: None, carried_over: Box::default() };
        TimelineEvent::Ready { .. } =>
            "ready" TimelineEvent::Ready { contract: Some(Box::new(contract())), changes: Some(Box::new(changes())), ramp: None, choice: None },
            "ready ramp" TimelineEvent::Ready { contract: None, changes: None, ramp: Some(step()), choice: None },
            "ready chosen" TimelineEvent::Ready { contract: None, changes: None, ramp: Some(step()), choice: Some(choice()) },
            "ready at once" TimelineEvent::Ready { contract: None, changes: None, ramp: None, choice: Some(at_once()) },
            "ready least" TimelineEvent::Ready { contract: None, changes: None, ramp: None, choice: None };
        TimelineEvent::Failed => "failed" TimelineEvent::Failed;
        TimelineEvent::Switched { .. } => "switched" TimelineEvent::Switched { to: release(7).number };
        TimelineEvent::Stepped { .. } => "stepped" TimelineEvent::Stepped { ramp: step() };
        TimelineEvent::Accepted { .. } => "accepted" TimelineEvent::Accepted { verified: true };
        TimelineEvent::Detected { .. } =>
            "detected" TimelineEvent::Detected { trigger: Trigger::Verdict(Box::new(breach())), load: load() },
            "detected basis" TimelineEvent::Detected { trigger: Trigger::Verdict(Box::new(breach_with_basis())), load: load() },
            "detected ordered" TimelineEvent::Detected { trigger: ordered(), load: load() },
            "detected least" TimelineEvent::Detected {
                trigger: Trigger::Operator { by: Actor::default(), strategy: Strategy::Drain, forced: false },
                load: bare_load(),
            };
        TimelineEvent::Reviving => "reviving" TimelineEvent::Reviving;
        TimelineEvent::Abandoned => "abandoned" TimelineEvent::Abandoned;
        TimelineEvent::Decided { .. } =>
            "decided" TimelineEvent::Decided {
                strategy: Strategy::Cut, severity: Severity::Down, ordered: true, reason: None,
            },
            "decided down" decided(StrategyReason::Down),
            "decided failing" decided(StrategyReason::MostRequestsFail { failure_rate_lower: 0.625 }),
            "decided expected" decided(StrategyReason::FewerFailures(expected_failures())),
            "decided least" TimelineEvent::Decided {
                strategy: Strategy::Drain, severity: Severity::Degraded, ordered: false, reason: None,
            };
        TimelineEvent::Escalated(_) =>
            "escalated" TimelineEvent::Escalated(None),
            "escalated reason" TimelineEvent::Escalated(Some(StrategyReason::Down));
        TimelineEvent::Drained { .. } =>
            "drained" TimelineEvent::Drained { cost: drain_cost() }, "drained least" TimelineEvent::Drained { cost: bare_drain_cost() };
        TimelineEvent::Cut { .. } => "cut" TimelineEvent::Cut { cost: drain_cost() };
        TimelineEvent::Recovered => "recovered" TimelineEvent::Recovered;
        TimelineEvent::Unrecovered => "unrecovered" TimelineEvent::Unrecovered;
        TimelineEvent::Blocked { .. } => "blocked" TimelineEvent::Blocked { guard: Guard::SharedOutage, verdict: breach() };
        TimelineEvent::Cleared => "cleared" TimelineEvent::Cleared;
        TimelineEvent::Held { .. } =>
            "held" TimelineEvent::Held { hold: hold(Some(actor())) }, "held least" TimelineEvent::Held { hold: hold(None) };
        TimelineEvent::Resumed { .. } => "resumed" TimelineEvent::Resumed { by: actor() };
        TimelineEvent::Retried { .. } => "asked_again" TimelineEvent::Retried { tries: 2 };
        TimelineEvent::Restored { .. } =>
            "restored" TimelineEvent::Restored { truncated_bytes: 17, unobserved_ms: None },
            "restored observed" TimelineEvent::Restored { truncated_bytes: 0, unobserved_ms: Some(1_250) };
        TimelineEvent::Paused { .. } => "paused" TimelineEvent::Paused { ms: 30_000 };
        TimelineEvent::Notified { .. } => "notified" notified();
        TimelineEvent::Acknowledged { .. } => "acknowledged" TimelineEvent::Acknowledged { by: actor() };
        TimelineEvent::Reloaded { .. } => "reloaded" reloaded();
        TimelineEvent::Noted => "noted" TimelineEvent::Noted;
    )
}

fn notified() -> TimelineEvent {
    TimelineEvent::Notified { channel: "pager".to_owned(), notice: "host1/weather/7/4".to_owned() }
}

fn reloaded() -> TimelineEvent {
    let (now, next_deploy) = (vec!["bake".to_owned()], vec!["objective".to_owned()]);
    TimelineEvent::Reloaded { now, next_deploy }
}

fn deployed() -> TimelineEvent {
    let (release, by, base) = (release(7), actor(), Box::new(base()));
    TimelineEvent::Deployed {
        release,
        frozen: true,
        forced: true,
        waived: Vec::new(),
        strict: true,
        outside_links: OutsideLinks::default(),
        by,
        carried_over: base,
    }
}

fn deployed_least() -> TimelineEvent {
    let by = Actor { uid: 0, pid: 0, user: None };
    let base = Box::<CarriedOver>::default();
    let (frozen, forced, strict) = (false, false, false);
    TimelineEvent::Deployed {
        release: bare_release(7),
        frozen,
        forced,
        waived: Vec::new(),
        strict,
        outside_links: OutsideLinks::default(),
        by,
        carried_over: base,
    }
}

/// With what 0.1.0 did not know.
fn deployed_waived() -> TimelineEvent {
    let all =
        vec![Waiver::Quarantined, Waiver::VersionDrop, Waiver::OverBreach, Waiver::WithoutNet];
    let base = CarriedOver { warm: Some(release(5)), ramped: true, ..base() };
    let link = OutsideLink { path: "lib".to_owned(), target: "/usr/lib".to_owned() };
    let links = OutsideLinks { count: 1, listed: vec![link] };
    TimelineEvent::Deployed {
        release: Release { same_version: true, ..release(7) },
        frozen: false,
        forced: false,
        waived: all,
        strict: false,
        outside_links: links,
        by: actor(),
        carried_over: Box::new(base),
    }
}

/// Writes each event into a folder of its own. Returns the name, the stored line, and the entry.
fn written() -> Vec<(&'static str, String, TimelineEntry)> {
    let write = |(name, fact): (&'static str, TimelineEvent)| {
        let dir = tempfile::tempdir().unwrap();
        let mut timeline = Timeline::open(dir.path(), "weather").timeline;
        let planned_effects = match &fact {
            TimelineEvent::Deployed { .. } => vec![Effect::Start(release(7)).to_string()],
            _ => Vec::new(),
        };
        let new = NewEntry {
            moment: BEGUN,
            wall_time: "2023-11-14T22:13:20.000000Z".to_owned(),
            because: "why".to_owned(),
            event: fact,
            planned_effects,
        };
        let entry = timeline.append(new, Room::Ordinary).unwrap();
        assert_eq!(read_deploy(dir.path(), None).unwrap(), std::slice::from_ref(&entry));
        let file = dir.path().join(format!("{:06}.jsonl", entry.deploy.0));
        (name, fs::read_to_string(file).unwrap(), entry)
    };
    facts().into_iter().map(write).collect()
}

#[test]
fn every_kind_of_line_is_as_it_was() {
    let text = written().into_iter().map(|(name, line, _)| format!("{name}  {line}"));
    hold_golden("timeline.txt", &text.collect::<String>());
}

#[test]
fn a_line_says_its_kind_as_the_metrics_do() {
    for (_, line, entry) in written() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["kind"], entry.event.kind());
    }
}

#[test]
fn old_lines_are_still_read() {
    let entries: Vec<_> = written().into_iter().map(|(name, _, entry)| (name, entry)).collect();
    still_read(include_str!("0.1.0/timeline.txt"), &entries);
}
