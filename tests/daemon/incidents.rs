//! Incidents: opened by the daemon, drafted, reviewed and closed over the control socket.

use serde_json::Value;

use crate::support::{ACCEPT, DaemonHarness, Receiver, SERVICE, VersionPoller, wait_until};

/// A daemon whose v2 failed under traffic and was rolled back.
fn after_a_rollback() -> DaemonHarness {
    let host = DaemonHarness::with_v1("");
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
    wait_until("the draft", || row(&host)["state"] == "draft");
    host
}

/// The newest incident in a row.
fn row(host: &DaemonHarness) -> Value {
    let rows = host.run_cli(&["incidents", SERVICE, "--json"]).expect_code(0).json_lines();
    rows.first().cloned().unwrap_or_default()
}

fn document(host: &DaemonHarness) -> Value {
    host.run_cli(&["postmortem", SERVICE, "--json"]).expect_code(0).json_lines().remove(0)
}

#[test]
fn a_rollback_opens_an_incident_that_is_reviewed_and_closed() {
    let mut host = after_a_rollback();
    let document = document(&host);
    assert_eq!(document["schema"], "rollbackd.postmortem/1");
    assert_eq!(document["title"], "v2 rolled back to v1");
    let failed = document["impact"]["server_faults"].as_u64().unwrap();
    let requests = document["impact"]["requests"].as_u64().unwrap();
    assert!(failed > 0 && failed <= requests, "{failed} of {requests}");
    let by_call = document["failures"].as_array().unwrap().iter();
    let by_call: u64 = by_call.map(|it| it["server_faults"].as_u64().unwrap()).sum();
    assert_eq!(by_call, failed, "all failures and those by call are of one moment");
    assert!(document["hypotheses"].as_array().is_some_and(|it| !it.is_empty()));
    assert!(document["evidence"]["points"].as_array().is_some_and(|it| !it.is_empty()));
    host.run_cli(&["postmortem", SERVICE]).expect_code(0).expect_text(&[
        "# Post-mortem 2 of weather: v2 rolled back to v1",
        "## Root cause",
        "| **detected** |",
    ]);
    assert_eq!(host.status()["incidents"]["open"], 1);
    host.run_cli(&["status"]).expect_code(0).expect_text(&["open reviews: 1"]);
    host.run_cli(&["ack", SERVICE]).expect_code(0).expect_text(&["acknowledged: incident 2"]);
    host.run_cli(&["ack", SERVICE]).expect_code(7);
    host.run_cli(&["postmortem", "close", SERVICE, "2"])
        .expect_code(5)
        .expect_text(&["the root cause", "one action item"]);
    let add =
        ["action", "add", SERVICE, "2", "cover forecast", "--owner", "team", "--due", "2026-12-01"];
    host.run_cli(&add).expect_code(0).expect_text(&["action item 2-1"]);
    host.run_cli(&["action", "list"]).expect_code(0).expect_text(&["2-1", "cover forecast"]);
    // A restart forgets nothing, and opens nothing twice.
    host.stop();
    host.start();
    host.run_cli(&["action", "done", SERVICE, "2-1"]).expect_code(0);
    host.run_cli(&["action", "done", SERVICE, "2-1"]).expect_code(7);
    let close =
        ["postmortem", "close", SERVICE, "2", "--no-review", "a drill", "--verdict", "right"];
    host.run_cli(&close).expect_code(0);
    assert_eq!(host.status()["incidents"], Value::Null);
    let rows = host.run_cli(&["incidents", "--json"]).expect_code(0).json_lines();
    assert_eq!((rows.len(), rows[0]["state"].as_str()), (1, Some("closed")));
    host.run_cli(&["history", SERVICE]).expect_code(0).expect_text(&["rolled back", "v2"]);
    expect_same_verdict_in_a_replay(&host);
}

/// The recording of a deploy that a review found right has the verdict again, in the same block.
pub(crate) fn expect_same_verdict_in_a_replay(host: &DaemonHarness) {
    let replayed = host.run_cli(&["backtest", "--labelled", SERVICE, "--json"]).expect_code(0);
    let replayed = &replayed.json_lines()[0]["deploys"][0];
    assert_eq!(replayed["change"], "still_found", "{replayed}");
    let [then, now] = [&replayed["then"], &replayed["now"]];
    // The daemon decides at the end of a block of signals, and records it a moment later.
    let [decided, found] = [then, now].map(|it| it["at_second"].as_f64().unwrap());
    assert!((decided - found).abs() < 0.25, "{replayed}");
    assert_eq!(then["failed_requests"], now["failed_requests"], "{replayed}");
    assert!(now["failed_requests"].as_u64().is_some_and(|it| it > 0), "{replayed}");
}

#[test]
fn a_daemon_that_is_killed_opens_the_incident_at_its_next_start() {
    let mut host = after_a_rollback();
    host.kill();
    std::fs::remove_dir_all(host.state().join(SERVICE).join("incidents")).unwrap();
    host.start();
    wait_until("the draft", || row(&host)["state"] == "draft");
    assert_eq!(row(&host)["incident"], 2);
}

#[test]
fn a_release_that_never_becomes_ready_is_an_incident() {
    let host = DaemonHarness::with_v1("start_timeout = \"2s\"");
    host.deploy_faulty("v2", "total", 0, &[]).expect_code(4);
    wait_until("the draft", || row(&host)["state"] == "draft");
    let document = document(&host);
    assert_eq!(document["title"], "v2: the release never became ready");
    assert_eq!(document["hypotheses"][0]["rule"], "does-not-start");
}

#[test]
fn an_edit_is_saved_and_a_failed_editor_loses_nothing() {
    let host = after_a_rollback();
    let edit = |script: &str, more: &[&str]| {
        let path = host.dir_path().join("editor.sh");
        std::fs::write(&path, script).unwrap();
        let command = format!("VISUAL='sh {}' exec \"$0\" \"$@\"", path.display());
        let program = env!("CARGO_BIN_EXE_rollbackd");
        let config = host.config();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command, program, "postmortem", SERVICE, "--edit", "--config"]);
        shell.arg(config).args(more).env_remove("ROLLBACKD_CONFIG").env_remove("ROLLBACKD_SOCKET");
        shell.env("TMPDIR", host.dir_path());
        shell.output().unwrap()
    };
    let editor = |script: &str| edit(script, &[]);
    let saved =
        editor("sed -i 's/^<!-- rollbackd:write root_cause -->$/&\\nthe schema changed/' \"$1\"");
    assert!(saved.status.success(), "{saved:?}");
    let path = host.state().join(SERVICE).join("incidents/000002.md");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("root_cause -->\nthe schema changed\n<!-- rollbackd:end -->"), "{text}");
    assert_eq!(row(&host)["state"], "in review");
    for broken in ["exit 3", "sed -i '/rollbackd:end/d' \"$1\"", "truncate -s 0 \"$1\""] {
        let failed = editor(broken);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        assert!(String::from_utf8_lossy(&failed.stderr).contains("your text is in"), "{failed:?}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    // A text that blames a person is saved with a warning; with --strict it is not.
    let blaming = "sed -i 's/^<!-- rollbackd:write factors -->$/&\\nBob forgot the tests./' \"$1\"";
    let warned = editor(blaming);
    let stderr = String::from_utf8_lossy(&warned.stderr).into_owned();
    assert!(
        warned.status.success() && stderr.contains("blameless: \"Bob forgot the tests.\""),
        "{stderr}"
    );
    let text = std::fs::read_to_string(&path).unwrap();
    let blaming = blaming.replace("factors", "went_badly");
    let refused = edit(&blaming, &["--strict"]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let page = host.dir_path().join("page.html");
    host.run_cli(&["postmortem", SERVICE, "--html", page.to_str().unwrap()]).expect_code(0);
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
}

/// An action item of incident 2.
fn add_action(host: &DaemonHarness, text: &str, check: &str, due: &str) {
    let add = ["action", "add", SERVICE, "2", text, "--owner", "team", "--due", due];
    host.run_cli(&[add.as_slice(), &["--check", check]].concat()).expect_code(0);
}

#[test]
fn an_overdue_review_is_reminded_of_warns_and_refuses_deploys() {
    let receiver = Receiver::start(ACCEPT);
    let mut host = DaemonHarness::new("");
    let config = |host: &DaemonHarness, incidents: &str| {
        let url = receiver.url();
        let text = host.daemon_section()
            + incidents
            + &host.service_section(SERVICE, "")
            + &format!(
                "\n[notify.hook]\ntype = \"webhook\"\nurl = \"{url}\"\nkinds = [\"reminder\"]\n"
            );
        host.write_config(&text);
    };
    config(&host, "[incidents]\nremind = \"1s\"\n");
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
    // A daemon of another test may still try a channel at a port that is this one's now.
    let reminder = || {
        let notices = receiver.received().into_iter().map(|it| it.notice());
        notices.into_iter().find(|it| it["kind"] == "reminder")
    };
    wait_until("the reminder", || reminder().is_some());
    let notice = reminder().unwrap();
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("the review of incident 2 (v2: rolled back by the daemon)"), "{text}");
    host.run_cli(&["status"]).expect_code(0).expect_text(&["OVERDUE"]);
    add_action(&host, "drain faster", "drain_timeout = 9s", "2099-12-01");
    add_action(&host, "bake longer", "bake = 600s", "2099-12-01");
    add_action(&host, "ask the team", "", "2026-01-01");
    host.run_cli(&["action", "done", SERVICE, "2-1"]).expect_code(0);
    let deployed = host.deploy("v3", &[]).expect_code(0);
    for warning in [
        "warning: the review of incident 2 is overdue",
        "action 2-1 (drain faster) is marked as done, but drain_timeout is 2s, not 9s",
        "action 2-3 (ask the team) is overdue since 2026-01-01, for team",
    ] {
        assert!(deployed.err.contains(warning), "{warning} in {}", deployed.err);
    }
    assert!(!deployed.err.contains("2-2"), "{}", deployed.err);
    host.run_cli(&["action", "done", SERVICE, "2-1"]).expect_code(0);
    config(&host, "[incidents]\nremind = \"1s\"\nrequire_review = true\n");
    host.reload();
    wait_until("the reload", || host.log().contains("applied the new configuration"));
    host.deploy("v4", &[]).expect_code(5).expect_text(&["require_review is set"]);
    // Past that guard, the trial of v3 may be in the way.
    assert_ne!(host.deploy("v4", &["--force"]).code, 5);
    let close = ["postmortem", "close", SERVICE, "2", "--no-review", "a drill"];
    host.run_cli(&close).expect_code(0);
    let deployed = host.deploy("v5", &[]);
    assert!(!deployed.err.contains("review"), "{}", deployed.err);
}

#[test]
fn only_so_many_closed_incidents_are_kept() {
    let host = DaemonHarness::new("");
    let text = host.daemon_section()
        + "[incidents]\nkeep = 1\n"
        + &host.service_section(SERVICE, "start_timeout = \"1s\"");
    host.write_config(&text);
    let mut host = host;
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    for version in ["v2", "v3", "v4"] {
        host.deploy_faulty(version, "total", 0, &[]).expect_code(4);
    }
    let rows = || host.run_cli(&["incidents", "--json"]).expect_code(0).json_lines();
    wait_until("three drafts", || rows().iter().filter(|it| it["state"] == "draft").count() == 3);
    for number in ["2", "3"] {
        let close = ["postmortem", "close", SERVICE, number, "--no-review", "a drill"];
        host.run_cli(&close).expect_code(0);
    }
    wait_until("one closed and one open are left", || {
        rows().iter().map(|it| it["incident"].as_u64()).eq([Some(4), Some(3)])
    });
    assert!(!host.state().join(SERVICE).join("incidents/000002.md").exists());
}

#[test]
fn a_report_counts_what_happened() {
    let host = after_a_rollback();
    let report = |options: &[&str]| {
        let words = [&["report", "--json"], options].concat();
        host.run_cli(&words).expect_code(0).json_lines().remove(0)
    };
    let before = report(&[]);
    assert_eq!((&before["schema"], &before["about"]), (&"rollbackd.report/1".into(), &Value::Null));
    assert_eq!((&before["deploys"], &before["failed_deploys"]), (&2.into(), &1.into()));
    assert_eq!(before["unreviewed_rollbacks"], 1);
    assert!(before["failed_requests"].as_u64() > Some(0), "{before}");
    assert!(before["detect"]["median_ms"].as_u64() > Some(0), "{before}");
    host.run_cli(&["report", "--service", SERVICE, "--since", "7d"]).expect_code(0).expect_text(&[
        "change failure rate   50.0 % (1 of 2 deploys)",
        "false alarms          0 of 1 good releases",
        "server fault of",
    ]);
    let close =
        ["postmortem", "close", SERVICE, "2", "--no-review", "a drill", "--verdict", "false-alarm"];
    host.run_cli(&close).expect_code(0);
    let after = report(&["--service", SERVICE]);
    assert_eq!((&after["failed_deploys"], &after["false_alarms"]["count"]), (&0.into(), &1.into()));
    assert_eq!(after["verdicts"]["false-alarm"], 1);
    let file = host.dir_path().join("report.html");
    host.run_cli(&["report", "--html", file.to_str().unwrap()]).expect_code(0);
    assert!(std::fs::read_to_string(file).unwrap().contains("<svg"));
    host.run_cli(&["report", "--since", "soon"]).expect_code(2);
    host.run_cli(&["report", "--service", "nosuch"]).expect_code(7);
}

#[test]
fn a_draft_shows_error_answers_and_what_is_new_in_the_output() {
    // The demo server prints nothing of itself: a shell does so for it.
    let script = "echo \"serving $ROLLBACKD_NUMBER on $PORT\"; \
                  case $ROLLBACKD_NUMBER in 2) echo \"RegionError: token=Zx81kkQpLm2 is not known\";; esac; \
                  exec \"$0\" demo-server";
    let program = env!("CARGO_BIN_EXE_rollbackd");
    let command = format!("command = [\"sh\", \"-c\", {script:?}, {program:?}]");
    let host = DaemonHarness::with_v1(&command);
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 1_000, &[]).expect_code(3);
    traffic.stop();
    wait_until("the draft", || row(&host)["state"] == "draft");
    let document = document(&host);
    let sample = &document["samples"][0];
    assert!(sample["message"].as_str().is_some_and(|it| !it.is_empty()), "{document}");
    assert_eq!(sample["release"], 2);
    let output = document["output"].as_array().unwrap();
    assert_eq!(output[0]["example"], "RegionError: token=[masked] is not known", "{output:?}");
    let new: Vec<_> = output.iter().map(|it| it["is_new"].as_bool().unwrap()).collect();
    assert_eq!(new, [true, false], "{output:?}");
    let text = host.run_cli(&["postmortem", SERVICE]).expect_code(0).out;
    assert!(text.contains("- new: 1 x `RegionError: token=[masked] is not known`"), "{text}");
    let kept = std::fs::read_to_string(host.state().join(SERVICE).join("incidents/000002.html"));
    assert!(!kept.unwrap().contains("Zx81kkQpLm2"));
}

#[test]
fn a_draft_shows_what_the_deploy_changed() {
    let mut host = DaemonHarness::new("");
    host.start();
    let artifact = |name: &str, text: &str| {
        let dir = host.dir_path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("requirements.txt"), text).unwrap();
        dir.display().to_string()
    };
    let (old, new) = (artifact("old", "mcp==1.1"), artifact("new", "mcp==1.2"));
    host.deploy("v1", &["--wait", "--artifact", &old]).expect_code(0);
    host.configure("drain_timeout = \"1s\"");
    host.reload();
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 1_000, &["--artifact", &new]).expect_code(3);
    traffic.stop();
    wait_until("the draft", || row(&host)["state"] == "draft");
    let document = document(&host);
    let nearby = document["nearby"][0].as_str().unwrap();
    assert!(nearby.contains(" weather, deploy 1: deployed: v1 deployed by"), "{nearby}");
    let changes = document["changes"].as_array().unwrap().clone();
    let changes: Vec<_> = changes.iter().map(|it| it["text"].as_str().unwrap()).collect();
    for change in ["requirements.txt changed (8 -> 8 bytes)", "drain_timeout: 2s -> 1s"] {
        assert!(changes.contains(&change), "{change} in {changes:?}");
    }
}

#[test]
fn a_reload_before_the_onset_is_a_contributing_factor() {
    let host = DaemonHarness::with_v1("");
    let traffic = VersionPoller::start(host.listen);
    let deploy = host.spawn_faulty_deploy("v2", "errors=60%", 4_000, &["--wait"]);
    host.wait_for_phase("baking");
    let section = host.service_section(SERVICE, "bake = \"9m\"\nclient_faults = \"off\"");
    host.write_config(&(host.daemon_section() + &section));
    host.reload();
    deploy.wait().expect_code(3);
    traffic.stop();
    wait_until("the draft", || row(&host)["state"] == "draft");
    let document = document(&host);
    let factors = document["factors"].as_array().unwrap();
    let factor = factors.iter().find(|it| it["rule"] == "reload");
    let factor = factor.unwrap_or_else(|| panic!("{factors:#?}"));
    assert_eq!(factor["observation"], "it changed bake", "what waits for a deploy is no cause");
    host.run_cli(&["postmortem", SERVICE])
        .expect_code(0)
        .expect_text(&["now: bake; with the next deploy: client\\_faults"]);
}

#[test]
fn ten_thousand_incidents_are_read_listed_and_reported() {
    let mut host = after_a_rollback();
    host.stop();
    let folder = host.state().join(SERVICE).join("incidents");
    let record = std::fs::read_to_string(folder.join("000002.jsonl")).unwrap();
    for number in 1_000..11_000 {
        let copy = record.replace("\"deploy\":2,", &format!("\"deploy\":{number},"));
        std::fs::write(folder.join(format!("{number:06}.jsonl")), copy).unwrap();
    }
    host.start();
    let listed = host.run_cli(&["incidents", SERVICE, "--json"]).expect_code(0);
    assert!(listed.err.contains("only the newest 1000 are listed"), "{}", listed.err);
    assert_eq!(listed.json_lines().len(), 1_000);
    assert_eq!(host.status()["incidents"]["open"], 10_001);
    let report = host.run_cli(&["report", "--json"]).expect_code(0).json_lines().remove(0);
    assert_eq!(report["incidents"], 10_001, "{report}");
    host.run_cli(&["postmortem", SERVICE, "10999"]).expect_code(0).expect_text(&["# Post-mortem"]);
    host.run_cli(&["action", "list"]).expect_code(0);
    // The service works as before, and so does the next incident.
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v3", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
    let is_drafted = || {
        let shown = host.run_cli(&["postmortem", SERVICE, "3", "--json"]);
        shown.code == 0 && shown.json_lines().remove(0)["state"] == "draft"
    };
    wait_until("the draft", is_drafted);
}
