//! Starting, stopping, reloading, and the verbs that only look.

use std::fs;
use std::net::TcpListener;

use crate::support::{Host, SERVICE, Server, Verb, ask, exists, free_port, pause, soon};

#[test]
fn without_a_daemon_a_verb_says_where_it_looked() {
    let host = Host::new("");
    let socket = host.socket().display().to_string();
    let verbs: [&[&str]; 4] = [
        &["status"],
        &["deploy", SERVICE, "v1"],
        &["hold", SERVICE],
        &["rollback", SERVICE, "--because", "x"],
    ];
    for verb in verbs {
        host.verb(verb).expect(8).says(&["no daemon answers on", &socket, "rollbackd run"]);
    }
}

#[test]
fn a_bad_configuration_starts_nothing_and_shows_every_problem() {
    let host = Host::new("bakee = \"5s\"\nobjective = \"200%\"");
    for verb in ["run", "check"] {
        host.verb(&[verb]).expect(9).says(&["bakee", "objective", "errors"]);
    }
    host.verb(&["status"]).expect(8).says(&["the usual place", "rollbackd check"]);
    host.configure("");
    host.verb(&["check"]).expect(0).says(&["good, 1 service\n"]);
    fs::remove_file(host.config()).unwrap();
    host.verb(&["check"]).expect(9).says(&["config.toml"]);
}

#[test]
fn what_a_daemon_needs_and_does_not_get_is_named() {
    let mut host = Host::new("");
    host.start();
    host.run_to_its_end().expect(10).says(&["state folder", "another rollbackd runs on it"]);
    assert_eq!(host.phase(), "empty", "the first one lives on");
    host.stop();

    let taken = TcpListener::bind(("127.0.0.1", host.listen)).unwrap();
    let listen = format!("failed to listen on 127.0.0.1:{} for weather", host.listen);
    host.run_to_its_end().expect(10).says(&[&listen, "in use"]);
    drop(taken);

    let (key, cut) = (host.state().join("key"), host.state().join("cut"));
    fs::rename(&key, &cut).unwrap();
    fs::write(&key, "half").unwrap();
    host.run_to_its_end().expect(10).says(&["key", "shorter than 16 bytes; restore it"]);
    fs::rename(&cut, &key).unwrap();

    let file = host.path().join("file");
    fs::write(&file, "").unwrap();
    let text = fs::read_to_string(host.config()).unwrap();
    let state = format!("{:?}", host.state());
    host.write_config(&text.replace(&state, &format!("{:?}", file.join("state"))));
    host.run_to_its_end().expect(10).says(&["state folder", "Not a directory"]);

    let socket = format!("{:?}", host.socket());
    host.write_config(&text.replace(&socket, &format!("{:?}", file.join("socket"))));
    host.run_to_its_end().expect(10).says(&["failed to listen on", "file/socket"]);
}

#[test]
fn a_stop_in_order_takes_the_releases_along_and_a_start_brings_them_back() {
    let mut host = Host::with_v1("bake = \"5s\"");
    host.deploy("v2", &["--wait"]).expect(0);
    assert_eq!(host.running().len(), 2);
    assert_eq!(host.stop(), 0);
    assert!(host.running().is_empty());
    assert!(!host.socket().exists());
    host.start();
    soon("v2 answers again", || ask(host.listen) == Ok("v2".to_owned()));
    let status = host.status();
    assert_eq!((&status["active"], &status["warm"]), (&"v2".into(), &"v1".into()));
}

#[test]
fn a_daemon_that_starts_again_adopts_what_runs_and_stops_what_nobody_needs() {
    let mut host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    let before = host.running();
    host.kill();
    host.start();
    soon("v2 answers again", || ask(host.listen) == Ok("v2".to_owned()));
    assert_eq!(host.running(), before);
    assert!(before.iter().all(|it| exists(it.pid)));
    assert_eq!(host.phase(), "baking");
}

#[test]
fn status_and_timeline_are_told_to_people_and_to_scripts() {
    let host = Host::with_v1("");
    host.deploy("v2", &[]).expect(0);
    host.wait_for_phase("baking");
    soon("probes", || host.status()["releases"][0]["probe"] != "none yet");
    host.verb(&["status"]).expect(0).says(&[
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
    host.verb(&["timeline", SERVICE]).expect(0).says(&[
        "weather deploy 2, ",
        "deployed     v2 deployed by uid",
        "switched     v2 has the traffic, v1 stays warm",
    ]);
    let lines = host.verb(&["timeline", SERVICE, "--deploy", "1", "--json"]).expect(0).json();
    assert_eq!(lines.last().unwrap()["kind"], "accepted");
    let seq: Vec<_> = lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect();
    assert_eq!(seq, [1, 2, 3, 4]);
}

#[test]
fn a_timeline_is_followed_and_can_be_read_without_a_daemon() {
    let mut host = Host::with_v1("");
    let follow = host.begin(&["timeline", SERVICE, "--follow"]);
    soon("what was", || follow.so_far().contains("accepted"));
    host.deploy("v2", &[]).expect(0);
    soon("what is new", || follow.so_far().contains("v2 has the traffic"));
    host.kill();
    follow.done();
    let done = host.verb(&["timeline", SERVICE]).expect(0);
    let done = done.says(&["no daemon answers; this is what lies on disk", "v2 has the traffic"]);
    assert!(!done.out.contains("no daemon"), "it is not part of the result");
    host.verb(&["timeline", SERVICE, "--deploy", "1", "--json"]).expect(0).json();
    host.verb(&["timeline", "wether"]).expect(7).says(&["no service wether"]);
    host.verb(&["timeline", SERVICE, "--deploy", "9"]).expect(7).says(&["deploy 9"]);
    fs::remove_file(host.config()).unwrap();
    host.verb(&["timeline", SERVICE]).expect(8).says(&["name it with --config"]);
}

#[test]
fn a_reload_takes_a_good_configuration_and_leaves_everything_with_a_bad_one() {
    let host = Host::with_v1("");
    let pid = host.process(1).pid;
    host.configure("mode = \"observe\"");
    host.reload();
    soon("the new mode", || host.status()["mode"] == "observe");

    let refused = "the configuration was not taken, nothing changed";
    let times = |host: &Host| host.log().matches(refused).count();
    host.configure("mode = \"perhaps\"");
    host.reload();
    soon("the refusal", || times(&host) == 1);
    assert!(host.log().contains("perhaps"), "it names the problem");

    let other = free_port();
    host.configure(&format!("listen = \"127.0.0.1:{other}\""));
    host.reload();
    soon("the refusal", || times(&host) == 2);
    let status = host.status();
    assert_eq!((&status["mode"], &status["active"]), (&"observe".into(), &"v1".into()));
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    assert_eq!(host.process(1).pid, pid);
}

#[test]
fn a_slot_can_be_added_but_not_moved_or_taken_away_while_the_daemon_runs() {
    let host = Host::with_v1("");
    let (blue, green, other) = (host.blue, host.green, free_port());
    let took = |host: &Host| host.log().matches("took the new configuration").count();
    let slots = |slots: &[(&str, u16)]| {
        let slots: Vec<_> =
            slots.iter().map(|(slot, port)| format!("{slot} = \"127.0.0.1:{port}\"")).collect();
        host.configure(&format!("slots = {{ {} }}", slots.join(", ")));
        host.reload();
    };
    slots(&[("red", other), ("green", green)]);
    soon("the refusal", || host.log().contains("slot blue of weather"));
    slots(&[("blue", other), ("green", green)]);
    soon("the refusal", || host.log().matches("slot blue of weather").count() == 2);
    assert_eq!(took(&host), 0);
    slots(&[("blue", blue), ("green", green), ("red", other)]);
    soon("the new slot", || took(&host) == 1);
    host.deploy("v2", &["--slot", "red"]).expect(0);
    host.wait_for_phase("baking");
    assert_eq!((ask(host.listen), ask(other)), (Ok("v2".to_owned()), Ok("v2".to_owned())));
}

#[test]
fn followers_that_left_take_no_place() {
    let host = Host::with_v1("");
    let follower = || {
        let follow = host.begin(&["timeline", SERVICE, "--follow"]);
        soon("it follows", || follow.so_far().contains("accepted"));
        follow
    };
    for _ in 0..70 {
        follower().kill();
    }
    host.verb(&["status"]).expect(0);
    let all: Vec<_> = (0..64).map(|_| follower()).collect();
    host.verb(&["status"]).expect(6).says(&["64 clients"]);
    all.into_iter().for_each(Verb::kill);
    soon("places", || host.verb(&["status"]).code == 0);
}

#[test]
fn who_waits_is_told_that_the_daemon_went_away() {
    let mut host = Host::with_v1("");
    let deploy = host.begin(&["deploy", SERVICE, "v2", "--wait"]);
    host.wait_for_phase("baking");
    host.kill();
    deploy.done().expect(1).says(&["the end was not seen", "timeline"]);
}

#[test]
fn releases_that_somebody_else_runs_are_only_watched_and_routed() {
    let mut host = Host::new("runtime = \"external\"\nbake = \"5s\"");
    host.start();
    let one = Server::start("v1", host.blue);
    host.deploy("v1", &["--wait"]).expect(0);
    host.deploy("v2", &["--wait", "--slot", "green"]).expect(4).says(&["never became ready"]);
    assert_eq!(ask(host.listen), Ok("v1".to_owned()));
    let _two = Server::start("v2", host.green);
    host.deploy("v2", &["--wait", "--slot", "green"]).expect(0);
    assert_eq!(ask(host.listen), Ok("v2".to_owned()));
    assert_eq!(host.stop(), 0);
    pause(std::time::Duration::from_millis(200));
    assert_eq!(ask(host.blue), Ok("v1".to_owned()), "it is not ours to stop");
    drop(one);
}
