//! A state directory that 0.1.0 wrote: `weather` at the end of a history, `maps` in a bake.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rollbackd::config;
use rollbackd::decide::{Phase, Watch};
use rollbackd::model::{ReleaseNumber, TimelineEvent, Trigger};
use rollbackd::record::{self, list_signal_logs, read_signal_log};
use serde_json::Value;

use crate::golden::hold;
use crate::support::{DaemonHarness, SERVICE, epoch_ms, free_port, serving_version, wait_until};

const MAPS: &str = "maps";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/state-0.1.0")
}

/// A host with a copy of the folder, and the port of `maps`. No process runs yet.
fn host() -> (DaemonHarness, u16) {
    let host = DaemonHarness::new("");
    let [listen, blue, green] = [(); 3].map(|()| free_port());
    let maps = format!(
        "listen = \"127.0.0.1:{listen}\"\n\
         slots = {{ blue = \"127.0.0.1:{blue}\", green = \"127.0.0.1:{green}\" }}"
    );
    let text = host.daemon_section()
        + &host.service_section(SERVICE, "")
        + &host.service_section(MAPS, &maps);
    host.write_config(&text);
    copy(&fixture(), &host.state());
    (host, listen)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let new = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &new);
        } else if path.ends_with("sessions.jsonl") {
            let text = fs::read_to_string(&path).unwrap();
            fs::write(new, text.replace("NOW", &now().to_string())).unwrap();
        } else {
            fs::copy(path, new).unwrap();
        }
    }
}

/// The time at which the daemon reads the folder. Its clock never starts before the last entry.
fn now() -> u64 {
    let entries = record::read_latest(&fixture().join(MAPS)).unwrap();
    epoch_ms().max(entries.last().unwrap().moment.0)
}

/// Whether a deploy has a matching entry.
fn has(service: &str, deploy: u32, is: impl Fn(&TimelineEvent) -> bool) -> bool {
    let entries =
        record::read_deploy(&fixture().join(service), Some(ReleaseNumber(deploy))).unwrap();
    entries.iter().any(|entry| is(&entry.event))
}

#[test]
fn every_deploy_of_it_is_read() {
    for deploy in [1, 2, 5] {
        assert!(
            has(SERVICE, deploy, |it| matches!(it, TimelineEvent::Accepted { .. })),
            "{deploy}"
        );
    }
    assert!(has(SERVICE, 3, |it| matches!(
        it,
        TimelineEvent::Detected { trigger: Trigger::Verdict(_), .. }
    )));
    assert!(has(SERVICE, 3, |it| matches!(it, TimelineEvent::Decided { ordered: false, .. })));
    assert!(has(SERVICE, 3, |it| matches!(it, TimelineEvent::Recovered)));
    assert!(has(SERVICE, 4, |it| matches!(it, TimelineEvent::Failed)));
    assert!(has(SERVICE, 5, |it| matches!(it, TimelineEvent::Held { .. })));
    let ready = |it: &TimelineEvent| {
        matches!(it, TimelineEvent::Ready { contract: Some(_), changes: Some(_), .. })
    };
    assert!(has(MAPS, 2, ready));
    assert!(has(MAPS, 2, |it| *it == TimelineEvent::Switched { to: ReleaseNumber(2) }));
}

#[test]
fn every_recording_of_it_is_read() {
    let mut count = 0;
    for service in [SERVICE, MAPS] {
        for (number, path) in list_signal_logs(&fixture().join(service)).unwrap() {
            let recorded = read_signal_log(&path).unwrap();
            assert_eq!((recorded.header.release, recorded.truncated_bytes), (number, 0));
            count += recorded.signals().count();
        }
    }
    assert!(count > 100, "{count} signals");
}

#[test]
fn the_state_machine_stands_where_it_stood() {
    let (host, _) = host();
    let settings = config::load(&host.config()).unwrap().settings;
    let watch = |service: &str| {
        let entries = record::read_latest(&host.state().join(service)).unwrap();
        let last = entries.last().unwrap().moment;
        Watch::restore(settings.services[service].policy.clone(), &entries, last)
    };
    let weather = watch(SERVICE);
    let Phase::Steady { active, warm: Some(warm), .. } = weather.phase() else {
        panic!("{:?}", weather.phase())
    };
    assert_eq!((active.version.as_str(), warm.version.as_str()), ("v5", "v2"));
    assert_eq!(active.artifact.as_deref(), Some("weather-v5"));
    assert_eq!(active.environment["LOG_LEVEL"], "debug");
    assert_eq!(weather.quarantine(), ["v3"]);
    assert_eq!(weather.hold().unwrap().because, "a migration runs");
    assert_eq!(weather.deploy(), ReleaseNumber(5));
    let maps = watch(MAPS);
    let Phase::Baking { active, warm: Some(warm), blocked: None, .. } = maps.phase() else {
        panic!("{:?}", maps.phase())
    };
    assert_eq!((active.version.as_str(), warm.version.as_str()), ("v2", "v1"));
    assert!(maps.deadline().is_some());
}

#[test]
fn the_daemon_goes_on_with_it() {
    let (mut host, maps) = host();
    let history = host.run_cli(&["timeline", SERVICE, "--deploy", "3"]).expect_code(0);
    history.expect_text(&["v3 deployed by", "v3 is degraded", "v2 keeps the promise again"]);
    host.start();
    let status = |service: &str| {
        host.run_cli(&["status", service, "--json"]).expect_code(0).json_lines().remove(0)
    };
    let weather = status(SERVICE);
    assert_eq!((&weather["active"], &weather["warm"]), (&"v5".into(), &"v2".into()));
    assert_eq!((&weather["phase"], &weather["quarantine"][0]), (&"steady".into(), &"v3".into()));
    assert!(weather["hold"].as_str().unwrap().starts_with("a migration runs (uid "), "{weather}");
    let baking = status(MAPS);
    assert_eq!((&baking["active"], &baking["warm"]), (&"v2".into(), &"v1".into()));
    assert_eq!(baking["phase"], "baking");
    wait_until("the releases answer", || {
        serving_version(host.listen) == Ok("v5".to_owned())
            && serving_version(maps) == Ok("v2".to_owned())
    });
    wait_until("all releases answer", || {
        [SERVICE, MAPS].iter().all(|service| {
            let releases = status(service)["releases"].clone();
            releases.as_array().unwrap().iter().all(|it| it["probe"] == "ok")
        })
    });
    sessions_go_on(&status(SERVICE), host.listen);
    hold("environment.txt", &environment(&host));
    host.deploy("v3", &[]).expect_code(5).expect_text(&["v3"]);
    host.run_cli(&["resume", SERVICE, "--because", "it is over"]).expect_code(0);
    assert_eq!(host.stop(), 0);
    let recording = |state: &Path| fs::read_to_string(state.join("maps/000002.signals")).unwrap();
    let (before, now) = (recording(&fixture()), recording(&host.state()));
    assert!(now.starts_with(&before) && before.len() < now.len(), "the recording goes on");
    assert!(
        host.entries(5)
            .iter()
            .any(|it| matches!(it.event, TimelineEvent::Restored { truncated_bytes: 0, .. }))
    );
}

#[test]
fn a_new_folder_has_the_same_files() {
    let mut host = DaemonHarness::with_v1("");
    host.deploy("v2", &["--set", "DEMO_FAULT=total"]).expect_code(0);
    wait_until("v2 starts", || host.status()["releases"][1]["role"] == "starting");
    assert_eq!(host.stop(), 0);
    let mut files = BTreeSet::new();
    names(&host.state(), "", &mut files);
    hold("state-files.txt", &files.into_iter().map(|it| it + "\n").collect::<String>());
}

/// Checks the session ids that 0.1.0 issued, each with the release that owns it.
fn sessions_go_on(status: &Value, port: u16) {
    let lines = include_str!("state-0.1.0.sessions").lines();
    let ids: Vec<_> = lines.map(|line| line.split_once("  ").unwrap()).collect();
    for release in status["releases"].as_array().unwrap() {
        let own = ids.iter().filter(|(version, _)| release["version"] == **version).count();
        assert_eq!(release["sessions"], own, "{release}");
    }
    for (version, id) in ids {
        let answer = call(port, id);
        let code = if version == "none" { "404" } else { "200" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{version} {id}: {answer}");
    }
}

fn call(port: u16, session: &str) -> String {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}}"#;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMcp-Session-Id: {session}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The variables that the daemon sets for the release with an artifact.
fn environment(host: &DaemonHarness) -> String {
    let words = fs::read(format!("/proc/{}/environ", host.release_process(5).pid)).unwrap();
    let words = String::from_utf8(words).unwrap();
    let ours = |word: &&str| word.starts_with("ROLLBACKD_") || word.starts_with("PORT=");
    let state = host.state().display().to_string();
    let lines = words.split('\0').filter(ours).map(|word| match word.split_once('=') {
        Some((name @ "PORT", _)) => format!("{name}=NUMBER\n"),
        _ => format!("{}\n", word.replace(&state, "STATE")),
    });
    lines.collect::<BTreeSet<_>>().into_iter().collect()
}

fn names(folder: &Path, before: &str, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{before}{}", path.file_name().unwrap().to_string_lossy());
        if path.is_dir() {
            names(&path, &format!("{name}/"), into);
        } else {
            into.insert(name);
        }
    }
}
