//! Start, stop, reload, and the commands that only read.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support::{
    CliCommand, DaemonHarness, ExternalServer, SERVICE, exists, free_port, serving_version,
    wait_until,
};

#[test]
fn command_without_a_daemon_names_the_socket() {
    let host = DaemonHarness::new("");
    let socket = host.socket().display().to_string();
    let verbs: [&[&str]; 4] = [
        &["status"],
        &["deploy", SERVICE, "v1"],
        &["hold", SERVICE],
        &["rollback", SERVICE, "--because", "x"],
    ];
    for verb in verbs {
        host.run_cli(verb).expect_code(8).expect_text(&[
            "no daemon answers on",
            &socket,
            "rollbackd run",
        ]);
    }
}

#[test]
fn invalid_config_starts_nothing_and_reports_every_problem() {
    let host = DaemonHarness::new("bakee = \"5s\"\nobjective = \"200%\"");
    for verb in ["run", "check"] {
        host.run_cli(&[verb]).expect_code(9).expect_text(&["bakee", "objective", "errors"]);
    }
    host.run_cli(&["status"]).expect_code(9).expect_text(&["cannot be used", "bakee", "objective"]);
    host.configure("");
    host.run_cli(&["check"]).expect_code(0).expect_text(&["good, 1 service\n"]);
    fs::remove_file(host.config()).unwrap();
    host.run_cli(&["check"]).expect_code(9).expect_text(&["config.toml"]);
}

#[test]
fn startup_error_names_the_missing_resource() {
    let mut host = DaemonHarness::new("");
    host.start();
    host.run_until_exit()
        .expect_code(10)
        .expect_text(&["state directory", "another rollbackd runs on it"]);
    assert_eq!(host.phase(), "empty", "the first one lives on");
    host.stop();

    let taken = TcpListener::bind(("127.0.0.1", host.listen)).unwrap();
    let listen = format!("cannot listen on 127.0.0.1:{} for weather", host.listen);
    host.run_until_exit().expect_code(10).expect_text(&[&listen, "ss -ltnp", "in use"]);
    drop(taken);

    let (key, cut) = (host.state().join("key"), host.state().join("cut"));
    fs::rename(&key, &cut).unwrap();
    fs::write(&key, "half").unwrap();
    host.run_until_exit()
        .expect_code(10)
        .expect_text(&["key", "shorter than 16 bytes; restore it"]);
    fs::rename(&cut, &key).unwrap();

    let file = host.dir_path().join("file");
    fs::write(&file, "").unwrap();
    let text = fs::read_to_string(host.config()).unwrap();
    let state = format!("{:?}", host.state());
    host.write_config(&text.replace(&state, &format!("{:?}", file.join("state"))));
    host.run_until_exit().expect_code(10).expect_text(&["state directory", "Not a directory"]);

    let socket = format!("{:?}", host.socket());
    host.write_config(&text.replace(&socket, &format!("{:?}", file.join("socket"))));
    host.run_until_exit().expect_code(10).expect_text(&["cannot listen on", "file/socket"]);
}

#[test]
fn clean_stop_ends_the_releases_and_start_restores_them() {
    let mut host = DaemonHarness::with_v1("bake = \"5s\"");
    let done = host.deploy("v2", &["--wait"]).expect_code(13);
    done.expect_text(&["accepted (unverified)", "=> accepted (unverified)", "(exit code 13)"]);
    assert_eq!(host.release_processes().len(), 2);
    assert_eq!(host.stop(), 0);
    assert!(host.release_processes().is_empty());
    assert!(!host.socket().exists());
    host.start();
    wait_until("v2 answers again", || serving_version(host.listen) == Ok("v2".to_owned()));
    let status = host.status();
    assert_eq!((&status["active"], &status["warm"]), (&"v2".into(), &"v1".into()));
}

#[test]
fn restart_adopts_needed_processes_and_stops_orphans() {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    let before = host.release_processes();
    host.kill();
    host.start();
    wait_until("v2 answers again", || serving_version(host.listen) == Ok("v2".to_owned()));
    assert_eq!(host.release_processes(), before);
    assert!(before.iter().all(|it| exists(it.pid)));
    assert_eq!(host.phase(), "baking");
}

#[test]
fn status_and_timeline_have_text_and_json_output() {
    let host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    wait_until("probes", || host.status()["releases"][0]["probe"] != "none yet");
    host.run_cli(&["status"]).expect_code(0).expect_text(&[
        "weather  127.0.0.1:",
        "active v2  warm v1  deploy 2  mode act",
        "baking for ",
        "watches v2, ",
        " left",
        "objective: at most 0.50 % bad",
        "evidence: ",
        "verdict: ",
    ]);
    let status = host.status();
    assert_eq!(status["releases"].as_array().unwrap().len(), 2);
    host.run_cli(&["timeline", SERVICE]).expect_code(0).expect_text(&[
        "weather deploy 2, ",
        "deployed     v2 deployed by ",
        "switched     v2 has the traffic, v1 stays warm",
    ]);
    let lines =
        host.run_cli(&["timeline", SERVICE, "--deploy", "1", "--json"]).expect_code(0).json_lines();
    assert_eq!(lines.last().unwrap()["kind"], "accepted");
    let seq: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seq, [1, 2, 3, 4]);
}

#[test]
fn timeline_can_be_followed_and_read_without_a_daemon() {
    let mut host = DaemonHarness::with_v1("");
    let follow = host.spawn_cli(&["timeline", SERVICE, "--follow"]);
    wait_until("what was", || follow.output_so_far().contains("accepted"));
    host.deploy("v2", &[]).expect_code(0);
    wait_until("what is new", || follow.output_so_far().contains("v2 has the traffic"));
    host.kill();
    follow.wait();
    let done = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    let done = done.expect_text(&["no daemon; reading from disk", "v2 has the traffic"]);
    assert!(!done.out.contains("no daemon"), "it is not part of the result");
    host.run_cli(&["timeline", SERVICE, "--deploy", "1", "--json"]).expect_code(0).json_lines();
    host.run_cli(&["timeline", "wether"]).expect_code(7).expect_text(&["no service wether"]);
    host.run_cli(&["timeline", SERVICE, "--deploy", "9"]).expect_code(7).expect_text(&["deploy 9"]);
    fs::remove_file(host.config()).unwrap();
    host.run_cli(&["timeline", SERVICE]).expect_code(9).expect_text(&["config.toml"]);
}

#[test]
fn reload_applies_a_valid_config_and_ignores_an_invalid_one() {
    let host = DaemonHarness::with_v1("");
    let pid = host.release_process(1).pid;
    host.configure("mode = \"observe\"");
    host.reload();
    wait_until("the new mode", || host.status()["mode"] == "observe");

    // What the evidence of a running bake was weighed against waits for the next deploy.
    host.configure("mode = \"observe\"\nburst = \"7s\"\ndrain_timeout = \"3s\"");
    host.reload();
    wait_until("the later setting", || {
        host.status()["awaits_deploy"] == serde_json::json!(["burst"])
    });
    host.run_cli(&["status"]).expect_code(0).expect_text(&["wait for the next deploy: burst"]);
    let log = host.log();
    assert!(log.contains("new configuration, in effect now: mode"), "{log}");
    assert!(log.contains("new configuration, in effect now: drain_timeout"), "{log}");
    assert!(log.contains("in effect with the next deploy; what runs keeps the old ones: burst"));

    let refused = "the new configuration ";
    let times = |host: &DaemonHarness| {
        host.log()
            .lines()
            .filter(|it| it.contains(refused) && it.contains("nothing changed"))
            .count()
    };
    host.configure("mode = \"perhaps\"");
    host.reload();
    wait_until("the refusal", || times(&host) == 1);
    wait_until("the problem by its name", || host.log().contains("perhaps"));

    host.run_cli(&["reload"]).expect_code(9).expect_text(&["perhaps"]);
    let told = ["mode observe", "has errors", "the daemon runs with what it read before"];
    host.run_cli(&["status"]).expect_code(0).expect_text(&told);
    let socket = host.socket().display().to_string();
    let told = host.run_cli(&["reload", "--socket", &socket]);
    told.expect_code(9).expect_text(&["nothing changed", "perhaps"]);
    host.run_cli(&["status", "--socket", &socket]).expect_text(&["mode observe"]);
    assert_eq!(host.release_process(1).pid, pid);
}

/// A change that needs a restart does not keep the rest of the file back.
#[test]
fn reload_takes_what_it_can_and_lists_what_waits_for_a_restart() {
    let host = DaemonHarness::with_v1("");
    let other = free_port();
    let reload = |settings: &str| {
        host.configure(settings);
        host.run_cli(&["reload"]).expect_code(0).out
    };
    let listen = format!("listen = \"127.0.0.1:{other}\"");
    let told = reload(&format!("{listen}\nmode = \"observe\"\nburst = \"7s\""));
    let wanted = [
        "in effect now: weather.mode",
        "in effect with the next deploy: weather.burst",
        "in effect after `systemctl restart rollbackd`: weather.listen",
    ];
    for line in wanted {
        assert!(told.lines().any(|it| it == line), "{line:?} in {told}");
    }
    let status = host.status();
    assert_eq!((&status["mode"], &status["active"]), (&"observe".into(), &"v1".into()));
    assert_eq!(status["awaits_restart"], serde_json::json!(["listen"]));
    host.run_cli(&["status"]).expect_text(&["wait for a restart of rollbackd: listen"]);
    let text = "after `systemctl restart rollbackd`: weather.listen";
    wait_until(text, || host.log().contains(text));
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    // It waits until the restart, whatever else changes, or until the file has the old value again.
    let told = reload(&format!("{listen}\nmode = \"act\""));
    assert!(told.contains("weather.listen") && told.contains("now: weather.mode"), "{told}");
    assert_eq!(host.status()["awaits_deploy"], serde_json::Value::Null, "burst is as it was");
    assert_eq!(reload(""), "nothing differs\n");
    assert_eq!(host.status()["awaits_restart"], serde_json::Value::Null);
}

#[test]
fn reload_may_add_a_slot_but_not_change_or_remove_one() {
    let host = DaemonHarness::with_v1("");
    let (blue, green, other) = (host.blue, host.green, free_port());
    let slots = |slots: &[(&str, u16)]| {
        let slots: Vec<_> =
            slots.iter().map(|(slot, port)| format!("{slot} = \"127.0.0.1:{port}\"")).collect();
        host.configure(&format!("slots = {{ {} }}", slots.join(", ")));
        host.run_cli(&["reload"]).expect_code(0).out
    };
    let waits = "after `systemctl restart rollbackd`: weather.slots";
    assert!(slots(&[("red", other), ("green", green)]).contains(waits));
    assert!(slots(&[("blue", other), ("green", green)]).contains(waits));
    host.deploy("v2", &["--slot", "red"]).expect_text(&["red"]);
    assert_eq!(host.status()["active"], "v1");
    assert!(
        slots(&[("blue", blue), ("green", green), ("red", other)]).contains("now: weather.slots")
    );
    host.deploy("v2", &["--slot", "red"]).expect_code(0);
    host.wait_for_phase("baking");
    assert_eq!(
        (serving_version(host.listen), serving_version(other)),
        (Ok("v2".to_owned()), Ok("v2".to_owned()))
    );
}

/// As fish asks: words after `--`, the last one is completed.
#[test]
fn names_and_numbers_are_completed_from_the_daemon() {
    let mut host = DaemonHarness::with_v1("");
    let config = host.config().display().to_string();
    let complete = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
        command.env("ROLLBACKD_COMPLETE", "fish").env("ROLLBACKD_CONFIG", &config);
        let output = command.args(["--", "rollbackd"]).args(words).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|it| it.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(complete(&["dep"]).contains(&"deploy".to_owned()));
    assert!(!complete(&[""]).contains(&"spawn-successor".to_owned()));
    assert_eq!(complete(&["rollback", "wea"]), [SERVICE]);
    assert_eq!(complete(&["rollback", "x"]), [""; 0]);
    assert_eq!(complete(&["deploy", SERVICE, "v"]), ["v1"]);
    assert_eq!(complete(&["timeline", SERVICE, "--deploy", ""]), ["1"]);
    assert!(complete(&["demo", "--fault", ""]).len() > 2);
    host.kill();
    assert_eq!(complete(&["rollback", "wea"]), [""; 0], "silent without a daemon");
}

#[test]
fn explain_says_what_a_service_waits_for() {
    let host = DaemonHarness::with_v1("");
    let explain = || host.run_cli(&["explain", SERVICE]);
    explain().expect_code(0).expect_text(&["nothing on trial: v1 is accepted", "no traffic: "]);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    explain().expect_code(0).expect_text(&[
        "why not accepted: ",
        "accepted: in ",
        "rollback weather` goes back to v1",
        "settings that decide:",
        "    bake = ",
    ]);
    host.run_cli(&["hold", SERVICE, "--because", "a test"]).expect_code(0);
    explain().expect_code(0).expect_text(&["a hold stops the end of the bake: a test", "resume"]);
    host.run_cli(&["rollback", SERVICE, "--because", "a test"]).expect_code(0);
    explain().expect_code(0).expect_text(&["rolled back from v2 to v1", "--allow-quarantined"]);
    host.run_cli(&["explain", "wether"]).expect_code(7).expect_text(&["did you mean weather?"]);
}

#[test]
fn disconnected_followers_free_their_slots() {
    let host = DaemonHarness::with_v1("");
    let follower = || {
        let follow = host.spawn_cli(&["timeline", SERVICE, "--follow"]);
        wait_until("it follows", || follow.output_so_far().contains("accepted"));
        follow
    };
    for _ in 0..70 {
        follower().kill();
    }
    host.run_cli(&["status"]).expect_code(0);
    let all: Vec<_> = (0..64).map(|_| follower()).collect();
    host.run_cli(&["status"]).expect_code(6).expect_text(&["64 clients"]);
    all.into_iter().for_each(CliCommand::kill);
    wait_until("places", || host.run_cli(&["status"]).code == 0);
}

#[test]
fn waiting_command_reports_that_the_daemon_ended() {
    let mut host = DaemonHarness::with_v1("");
    let deploy = host.spawn_cli(&["deploy", SERVICE, "v2", "--wait"]);
    host.wait_for_phase("baking");
    host.kill();
    deploy.wait().expect_code(1).expect_text(&["the end was not seen", "timeline"]);
}

#[test]
fn external_releases_are_probed_and_routed_but_not_stopped() {
    let mut host = DaemonHarness::new("runtime = \"external\"\nbake = \"5s\"");
    host.start();
    let one = ExternalServer::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect_code(0);
    host.deploy("v2", &["--wait", "--slot", "green"])
        .expect_code(4)
        .expect_text(&["never became ready"]);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    let _two = ExternalServer::start("v2", host.green);
    host.deploy("v2", &["--wait", "--slot", "green"]).expect_code(13);
    assert_eq!(serving_version(host.listen), Ok("v2".to_owned()));
    assert_eq!(host.stop(), 0);
    assert_eq!(serving_version(host.blue), Ok("v1".to_owned()), "it is not ours to stop");
    drop(one);
}

#[test]
fn what_is_damaged_or_in_the_way_in_the_state_keeps_nothing_from_starting() {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.kill();
    let dir = host.state().join(SERVICE);
    let newest = dir.join("000002.jsonl");
    let text = fs::read_to_string(&newest).unwrap();
    let damaged = text.replacen('\n', "\nnot a line\n", 3);
    fs::write(&newest, &damaged).unwrap();
    fs::create_dir(dir.join("000003.jsonl")).unwrap();
    fs::remove_file(dir.join("sessions.jsonl")).unwrap();
    fs::create_dir(dir.join("sessions.jsonl")).unwrap();
    host.start();
    wait_until("v1 answers", || serving_version(host.listen) == Ok("v1".to_owned()));
    assert_eq!(fs::read_to_string(dir.join("000002.jsonl.damaged")).unwrap(), damaged);
    let log = host.log();
    for words in ["000002.jsonl: line 2", "000003.jsonl", "sessions.jsonl"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    host.run_cli(&["timeline", SERVICE]).expect_code(0).expect_text(&["line 2", "continues after"]);
    host.wait_for_phase("baking");
}

#[test]
fn a_usage_does_not_ask_for_what_the_environment_has() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollbackd"));
    command.arg("ack").env("ROLLBACKD_CONFIG", "/tmp/config.toml").env("ROLLBACKD_SOCKET", "/s");
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("Usage: rollbackd ack <SERVICE>"), "{printed}");
}
