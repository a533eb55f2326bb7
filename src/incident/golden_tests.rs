//! The documents of some incidents, whole: Markdown, HTML and JSON are what they were.
//!
//! `DOCUMENT_BLESS=1 cargo test --lib golden` writes them anew; read the difference.

use std::path::PathBuf;

use serde_json::json;

use crate::incident::{
    Facts, FailureSample, HumanParts, OutputGroup, build, example, html, markdown,
};
use crate::model::{Guard, ReleaseNumber};

/// A rollback with everything that a draft can have, and a hostile release.
fn rolled_back() -> Facts {
    let mut facts = example::facts();
    example::require_city(&mut facts);
    facts.samples.push(FailureSample {
        release: ReleaseNumber(2),
        call: "tools/call forecast".into(),
        code: Some(-32603),
        message: "KeyError: <script>alert(1)</script> [x](javascript:y) | `z`".into(),
    });
    facts.output.push(OutputGroup {
        template: "KeyError: <*>".into(),
        count: 34,
        is_new: true,
        is_error: true,
        example: "KeyError: 'region'".into(),
    });
    facts.nearby.push("2023-11-14 22:13:25Z mail, deploy 14: noted: a process exited".into());
    facts
}

fn held() -> Facts {
    let mut facts = example::facts();
    example::block(&mut facts, Guard::Hold);
    facts
}

fn one_user() -> Facts {
    let mut facts = example::facts();
    example::fail_for_one_user(&mut facts);
    let accepted = json!({"kind": "accepted", "data": {"verified": false}});
    example::then(&mut facts, "v2 is accepted: 40 requests of one user failed", accepted);
    facts
}

fn never_ready() -> Facts {
    let timeline = example::failed_start("v2 was not ready in 10s: no answer");
    Facts { timeline, traffic: None, ..example::facts() }
}

#[test]
fn documents_are_as_they_were() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/incident/golden");
    let mut differ = Vec::new();
    for (name, facts) in [
        ("rolled_back", rolled_back()),
        ("held", held()),
        ("one_user", one_user()),
        ("never_ready", never_ready()),
    ] {
        let mut human = HumanParts::default();
        human.set("root_cause", "The schema of `forecast` changed.");
        let document = build(&example::incident_of(&facts), &facts, human, &[]);
        let json = serde_json::to_string_pretty(&document).unwrap() + "\n";
        for (extension, text) in
            [("md", markdown::render(&document)), ("html", html::render(&document)), ("json", json)]
        {
            let path = folder.join(format!("{name}.{extension}"));
            if std::env::var_os("DOCUMENT_BLESS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            let line = golden.lines().zip(text.lines()).find(|(then, now)| then != now);
            if golden != text {
                differ.push(format!("{name}.{extension}: {line:?}"));
            }
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
