//! A daemon hands over to its successor under load, and no client notices.

use rollbackd::clock::Clock;
use rollbackd::demo::traffic::{TrafficGenerator, TrafficReport};
use rollbackd::model::Moment;

use crate::support::{DaemonHarness, SERVICE, serving_version, wait_until};

/// Requests a second of both eras, JSON and SSE, with sessions that come and go and streams that
/// are open all the time.
const RATE: u32 = 300;

/// Runs an action under load. It can wait for requests with a response, from now on. Returns what the
/// clients saw.
fn under_load(port: u16, work: impl FnOnce(&dyn Fn(u64))) -> TrafficReport {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Clock::start(Moment(0));
        let load = TrafficGenerator::start(([127, 0, 0, 1], port).into(), RATE, clock);
        load.start_second_wave();
        let begun = clock.now();
        let counts = load.counter();
        let wait_for_requests = |count: u64| {
            let until = counts().requests + count;
            wait_until("requests", || counts().requests >= until);
        };
        tokio::task::block_in_place(|| {
            wait_for_requests(u64::from(RATE));
            work(&wait_for_requests);
            wait_for_requests(u64::from(RATE));
        });
        load.stop(begun).await
    })
}

#[track_caller]
fn assert_no_failures(report: &TrafficReport) {
    println!("at {RATE} requests/s: {report:?}");
    assert!(report.requests > 600, "{report:?}");
    assert_eq!((report.failed, report.sessions.broken), (0, 0), "{report:?}");
}

#[test]
fn consecutive_handovers_fail_no_request_and_break_no_session() {
    let mut host = DaemonHarness::with_v1("");
    let release = host.release_process(1);
    let report = under_load(host.listen, |wait_for_requests| {
        for _ in 0..4 {
            let before = host.pid();
            host.wait_for_handover();
            assert_ne!(host.pid(), before);
            assert_eq!(host.status()["active"], "v1");
            wait_for_requests(u64::from(RATE));
        }
        // Some daemons still drain when the next one takes over.
        host.wait_for_handover();
        host.wait_for_handover();
    });
    assert_no_failures(&report);
    assert_eq!(host.release_process(1), release, "it was adopted, not started again");
    wait_until("the old ones have left", || host.daemons() == [host.pid()]);
    let told = host.run_cli(&["timeline", SERVICE]).expect_code(0);
    told.expect_text(&["restored", "took over from process ", "(version "]);
    assert_eq!(host.stop(), 0, "the first one ended well");
    assert!(host.release_processes().is_empty(), "{:?}", host.release_processes());
    assert!(serving_version(host.listen).is_err());
}

/// A program with the name of the daemon, which takes over up to a given message.
fn fake_successor(after_prepared: &str) -> String {
    format!(
        "#!/bin/sh\n\
         case $1 in\n\
         succeed) exec 3<&0; \"$0\" run --succeed \"$2\" <&3 3<&- & ;;\n\
         run)\n\
             read -r hello\n\
             echo '{{\"prepared\":{{\"pid\":'$$',\"version\":\"9.9.9\"}}}}' >&0\n\
             while read -r word; do if [ \"$word\" = '\"yours\"' ]; then {after_prepared}; fi; done\n\
         esac\n"
    )
}

/// Replaces the program of the daemon, as an upgrade does.
fn replace_program(host: &DaemonHarness, program: &str) {
    let [text, new, place] = ["text", "new", "rollbackd"].map(|name| host.dir_path().join(name));
    std::fs::write(&text, program).unwrap();
    // Written by another process: a fork of another test would keep an open file descriptor (ETXTBSY).
    let mut install = std::process::Command::new("install");
    assert!(install.args(["-m", "755"]).arg(text).arg(&new).status().unwrap().success());
    std::fs::rename(new, place).unwrap();
}

#[test]
fn successor_that_cannot_start_changes_nothing() {
    let mut host = DaemonHarness::new("");
    host.move_program();
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    let (pid, before) = (host.pid(), host.entries(1));
    let good = std::fs::read_to_string(host.config()).unwrap();
    let report = under_load(host.listen, |_| {
        let fails = |why: &str| {
            host.request_handover();
            wait_until(why, || {
                let log = host.log();
                log.contains(why) && log.matches("this daemon continues").count() == 1
            });
            std::fs::write(host.dir_path().join("daemon.log"), "").unwrap();
        };
        host.write_config(&format!("{good}\nnonsense = 1\n"));
        fails("`nonsense` is not a setting");
        host.write_config(&good.replace("/state\"", "/elsewhere\""));
        fails("a new state directory needs a restart");
        host.write_config(&good);
        let newest = host.state().join(SERVICE).join("000001.jsonl");
        let timeline = std::fs::read(&newest).unwrap();
        std::fs::write(&newest, [b"[\n", timeline.as_slice()].concat()).unwrap();
        fails("000001.jsonl, line 1:");
        std::fs::write(&newest, timeline).unwrap();
        replace_program(&host, "#!/bin/sh\nexit 3\n");
        fails("did not start: exit status: 3");
        replace_program(&host, "no program at all");
        fails("cannot start ");
        replace_program(&host, "#!/bin/sh\nexit 0\n");
        fails("this daemon continues: the successor ");
        std::fs::remove_file(host.dir_path().join("rollbackd")).unwrap();
        fails("cannot start ");
    });
    assert_no_failures(&report);
    assert_eq!((host.pid(), host.entries(1)), (pid, before));
    assert_eq!(host.daemons(), [pid]);
}

#[test]
fn successor_that_fails_late_returns_control() {
    for end in ["kill -9 $$", "exec sleep 1000"] {
        let mut host = DaemonHarness::new("");
        host.move_program();
        host.start();
        host.deploy("v1", &["--wait"]).expect_code(0);
        let (pid, release) = (host.pid(), host.release_process(1));
        replace_program(&host, &fake_successor(end));
        let report = under_load(host.listen, |_| {
            host.request_handover();
            wait_until("it is taken back", || host.log().contains("failed, resuming"));
            wait_until("it answers", || host.phase() == "steady");
        });
        if end.starts_with("kill") {
            assert_no_failures(&report);
        } else {
            // The clients wait five seconds; the successor has ten to reply.
            println!("with one that hangs: {report:?}");
            assert_eq!(report.sessions.broken, 0, "{report:?}");
        }
        assert_eq!((host.pid(), host.release_process(1)), (pid, release));
        let told = host.run_cli(&["timeline", SERVICE]).expect_code(0);
        told.expect_text(&["restored", "rollbackd resumed after a failed handover and read"]);
        wait_until("the impostor is dead", || host.daemons() == [pid]);
        assert_eq!(host.stop(), 0);
    }
}

#[test]
fn either_daemon_may_end_while_requests_are_open() {
    let mut host = DaemonHarness::with_v1("drain_timeout = \"20s\"");
    let (port, old) = (host.listen, host.pid());
    let call = std::thread::spawn(move || slow_call(port, 4_000));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.wait_for_handover();
    // The metrics count it.
    wait_until("it is open elsewhere", || host.status()["releases"][0]["in_flight"] == 1);
    assert!(host.daemons().contains(&old));
    let begun = crate::support::epoch_ms();
    assert_eq!(host.stop(), 0, "it waits for the old one, which waits for the call");
    assert!(call.join().unwrap().contains("done after 4000 ms"));
    assert!(crate::support::epoch_ms() - begun < 15_000);

    host.start();
    wait_until("v1 answers again", || serving_version(host.listen) == Ok("v1".to_owned()));
    let old = host.pid();
    let call = std::thread::spawn(move || slow_call(port, 8_000));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.wait_for_handover();
    host.kill_pid(old);
    assert!(!call.join().unwrap().contains("done after"), "the stop did not cut the call off");
    wait_until("nothing is open", || host.status()["releases"][0]["in_flight"] == 0);
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    // And a stop by SIGTERM.
    let (old, call) = (host.pid(), std::thread::spawn(move || slow_call(port, 8_000)));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.wait_for_handover();
    host.terminate(old);
    let answer = call.join().unwrap();
    assert!(answer.contains("\"error\""), "it is answered: {answer}");
    wait_until("it has left", || host.daemons() == [host.pid()]);
}

/// A call that takes `ms` milliseconds. Returns its response.
fn slow_call(port: u16, ms: u32) -> String {
    use std::io::{Read as _, Write as _};
    let params = format!(r#"{{"name":"slow","arguments":{{"ms":{ms}}},"_meta":{META_2026}}}"#);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: tools/call\r\nMcp-Name: slow\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = Vec::new();
    // An incomplete response is checked as far as it was received.
    let _: std::io::Result<_> = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const META_2026: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn handover_does_not_extend_the_bake() {
    let mut host = DaemonHarness::with_v1("bake = \"6s\"");
    let load = crate::support::VersionPoller::start(host.listen);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    let remaining = || host.status()["remaining_s"].as_f64().unwrap_or_default();
    wait_until("a third of the bake is over", || remaining() < 4.0);
    host.wait_for_handover();
    assert_eq!(host.phase(), "baking");
    let remaining = || host.status()["remaining_s"].as_f64().unwrap_or_default();
    wait_until("half of it is over", || remaining() < 3.0);
    host.wait_for_handover();
    wait_until("v2 stays", || host.phase() == "steady");
    let seen = load.stop();
    assert!(seen.bad.is_empty(), "{:?}", seen.bad);
    let entries = host.entries(2);
    let at =
        |kind: &str| entries.iter().find(|it| it.event.kind() == kind).unwrap().since_deploy_ms;
    let baked = at("accepted") - at("switched");
    assert!((5_900..8_000).contains(&baked), "{baked} ms: {:?}", host.kinds(2));
}

#[test]
fn services_and_sockets_may_change_during_handover() {
    let mut host = DaemonHarness::with_v1("");
    let [listen, blue, green] = [(); 3].map(|()| crate::support::free_port());
    let other = format!(
        "listen = \"127.0.0.1:{listen}\"\n\
         slots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}"
    );
    let one = std::fs::read_to_string(host.config()).unwrap();
    let both = one.clone() + &host.service_section("maps", &other);
    let elsewhere = host.dir_path().join("elsewhere.sock");
    let elsewhere = format!("{elsewhere:?}");
    host.write_config(&both.replace(&format!("{:?}", host.socket()), &elsewhere));
    host.wait_for_handover();
    assert!(!host.socket().exists(), "the control socket is still there");
    host.run_cli(&["deploy", "maps", "m1", "--wait"]).expect_code(0);
    assert_eq!(serving_version(listen), Ok("m1".to_owned()));
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));

    host.write_config(&one);
    host.wait_for_handover();
    assert_eq!(serving_version(host.listen), Ok("v1".to_owned()));
    wait_until("no daemon listens for it", || {
        std::net::TcpStream::connect(("127.0.0.1", listen)).is_err()
    });
    host.run_cli(&["status"]).expect_code(0).expect_text(&["weather  127.0.0.1"]);
    assert_eq!(host.stop(), 0);
    assert!(!host.socket().exists());
}

#[test]
fn verbs_that_wait_go_on_with_the_next_daemon_and_after_a_kill() {
    let mut host = DaemonHarness::with_v1("bake = \"8s\"");
    let follow = host.spawn_cli(&["timeline", SERVICE, "--follow"]);
    let deploy = host.spawn_cli(&["deploy", SERVICE, "v2", "--wait"]);
    host.wait_for_phase("baking");
    host.wait_for_handover();
    let shows = |words: &str| follow.output_so_far().contains(words);
    wait_until("the successor's entry", || shows("took over from"));
    host.kill();
    host.start();
    deploy.wait().expect_code(13).expect_text(&["took over from", "accepted (unverified)"]);
    wait_until("the end", || shows("v2 deployed") && shows("accepted (unverified)"));
    let text = follow.output_so_far();
    assert_eq!(text.matches("v2 deployed by").count(), 1, "{text}");
    follow.kill();
}

/// A call that takes longer than `drain_timeout` finishes at the old daemon, and a client that keeps its
/// connection meets no error.
#[test]
fn long_calls_outlive_the_drain_timeout_of_a_handover() {
    let mut host = DaemonHarness::with_v1("drain_timeout = \"1s\"");
    let (port, old) = (host.listen, host.pid());
    let call = std::thread::spawn(move || slow_call(port, 4_000));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.wait_for_handover();
    assert!(call.join().unwrap().contains("done after 4000 ms"));
    wait_until("the old daemon is gone", || !host.daemons().contains(&old));
}

/// The slot of a new release may still serve calls of an earlier one, which would answer its probes.
#[test]
fn new_release_waits_for_the_calls_in_its_slot_and_a_handover_too() {
    let mut host = DaemonHarness::with_v1("drain_timeout = \"20s\"\nstart_timeout = \"40s\"");
    let port = host.listen;
    let call = std::thread::spawn(move || slow_call(port, 5_000));
    wait_until("it is open", || host.status()["releases"][0]["in_flight"] == 1);
    host.deploy("v2", &[]).expect_code(0);
    host.wait_for_phase("baking");
    host.run_cli(&["promote", SERVICE, "--because", "enough seen"]).expect_code(0);
    host.deploy("v3", &[]).expect_code(0);
    assert!(!call.is_finished(), "the call ended before the deploy");
    host.wait_for_handover();
    let answer = call.join().unwrap();
    assert!(answer.contains("done after 5000 ms"), "{answer}");
    host.wait_for_phase("baking");
    assert_eq!(serving_version(port), Ok("v3".to_owned()));
    let entries = host.entries(3);
    let at = |text: &str| entries.iter().position(|it| it.because.contains(text));
    assert!(at("v1 drained before it stops") < at("v3 is ready"), "{entries:#?}");
}
