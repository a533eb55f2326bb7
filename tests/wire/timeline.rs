//! The lines of a timeline, as they lie on disk.

use std::fs;

use rollbackd::model::{Actor, Base, Effect, Entry, Fact, Guard, Moment, Severity, Strategy};
use rollbackd::record::{Timeline, read};

use crate::examples::{
    actor, bare_load, bare_release, bare_toll, base, breach, changes, contract, hold, load,
    release, toll,
};
use crate::golden::hold as hold_golden;
use crate::lines::still_read;

const BEGUN: Moment = Moment(1_700_000_000_000);

/// At least one of each kind. `... least`: with nothing that may be left out.
fn facts() -> Vec<(&'static str, Fact)> {
    one_of_each!(Fact;
        Fact::Deployed { .. } => "deployed" deployed(), "deployed least" deployed_least();
        Fact::Found { .. } =>
            "found" Fact::Found { release: release(8), warm: Some(release(6)), base: Box::new(base()) },
            "found least" Fact::Found { release: bare_release(8), warm: None, base: Box::default() };
        Fact::Ready { .. } =>
            "ready" Fact::Ready { contract: Some(Box::new(contract())), changes: Some(Box::new(changes())) },
            "ready least" Fact::Ready { contract: None, changes: None };
        Fact::Failed => "failed" Fact::Failed;
        Fact::Switched { .. } => "switched" Fact::Switched { to: release(7).number };
        Fact::Accepted { .. } => "accepted" Fact::Accepted { verified: true };
        Fact::Detected { .. } =>
            "detected" Fact::Detected { verdict: Some(breach()), load: load(), order: None, forced: false },
            "detected ordered" Fact::Detected {
                verdict: None, load: load(), order: Some((actor(), Strategy::Drain)), forced: true,
            },
            "detected least" Fact::Detected {
                verdict: None, load: bare_load(), order: None, forced: false,
            };
        Fact::Reviving => "reviving" Fact::Reviving;
        Fact::Abandoned => "abandoned" Fact::Abandoned;
        Fact::Decided { .. } =>
            "decided" Fact::Decided { strategy: Strategy::Cut, severity: Severity::Down, ordered: true },
            "decided least" Fact::Decided {
                strategy: Strategy::Drain, severity: Severity::Degraded, ordered: false,
            };
        Fact::Escalated => "escalated" Fact::Escalated;
        Fact::Drained { .. } =>
            "drained" Fact::Drained { toll: toll() }, "drained least" Fact::Drained { toll: bare_toll() };
        Fact::Cut { .. } => "cut" Fact::Cut { toll: toll() };
        Fact::Recovered => "recovered" Fact::Recovered;
        Fact::Unrecovered => "unrecovered" Fact::Unrecovered;
        Fact::Blocked { .. } => "blocked" Fact::Blocked { guard: Guard::SharedOutage, verdict: breach() };
        Fact::Cleared => "cleared" Fact::Cleared;
        Fact::Held { .. } =>
            "held" Fact::Held { hold: hold(Some(actor())) }, "held least" Fact::Held { hold: hold(None) };
        Fact::Resumed { .. } => "resumed" Fact::Resumed { by: actor() };
        Fact::AskedAgain { .. } => "asked_again" Fact::AskedAgain { tries: 2 };
        Fact::Restored { .. } => "restored" Fact::Restored { torn: 17 };
        Fact::Noted => "noted" Fact::Noted;
    )
}

fn deployed() -> Fact {
    let (release, by, base) = (release(7), actor(), Box::new(base()));
    Fact::Deployed { release, frozen: true, forced: true, strict: true, by, base }
}

fn deployed_least() -> Fact {
    let by = Actor { uid: 0, pid: 0 };
    let base = Box::<Base>::default();
    let (frozen, forced, strict) = (false, false, false);
    Fact::Deployed { release: bare_release(7), frozen, forced, strict, by, base }
}

/// Each fact written into a folder of its own: the name of the file, the line, what was written.
fn written() -> Vec<(&'static str, String, Entry)> {
    let write = |(name, fact): (&'static str, Fact)| {
        let dir = tempfile::tempdir().unwrap();
        let (mut timeline, _, _) = Timeline::open(dir.path(), "weather").unwrap();
        let (wall, because) = ("2023-11-14T22:13:20.000000Z".to_owned(), "why".to_owned());
        let then = match &fact {
            Fact::Deployed { .. } => vec![Effect::Start(release(7)).to_string()],
            _ => Vec::new(),
        };
        let entry = timeline.append(BEGUN, wall, because, fact, then).unwrap();
        assert_eq!(read(dir.path(), None).unwrap(), std::slice::from_ref(&entry));
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
        assert_eq!(line["kind"], entry.fact.kind());
    }
}

#[test]
fn old_lines_are_still_read() {
    let entries: Vec<_> = written().into_iter().map(|(name, _, entry)| (name, entry)).collect();
    still_read(include_str!("0.1.0/timeline.txt"), &entries);
}
