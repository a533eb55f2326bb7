//! People are told: what happened, once, over every channel; and what fails is seen.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use rollbackd::incident::{Notice, NoticeKind};
use rollbackd::model::{Moment, ReleaseNumber};
use rollbackd::record::Outbox;
use serde_json::Value;

use crate::support::{
    ACCEPT, Answer, DaemonHarness, Received, Receiver, Rng, SERVICE, VersionPoller, sleep,
    wait_for, wait_until,
};

const SECRET: &str = "hunter2-hunter2";

/// A file that only its owner can read.
fn secret_file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A daemon with these channels and a first release.
fn with_channels(channels: &str) -> DaemonHarness {
    let mut host = DaemonHarness::new("");
    configure(&host, channels);
    host.start();
    host.deploy("v1", &["--wait"]).expect_code(0);
    host
}

fn configure(host: &DaemonHarness, channels: &str) {
    let text = host.daemon_section()
        + "page_url = \"https://status.example.org\"\n"
        + &host.service_section(SERVICE, "")
        + channels;
    host.write_config(&text);
}

fn webhook(name: &str, url: &str, more: &str) -> String {
    format!("\n[notify.{name}]\ntype = \"webhook\"\nurl = \"{url}\"\n{more}\n")
}

/// v2 fails under traffic and is rolled back.
fn roll_back(host: &DaemonHarness) {
    let traffic = VersionPoller::start(host.listen);
    host.deploy_faulty("v2", "errors=60%", 3_000, &[]).expect_code(3);
    traffic.stop();
}

fn kinds(received: &[Received]) -> Vec<String> {
    let kind = |it: &Received| it.notice()["kind"].as_str().unwrap().to_owned();
    received.iter().map(kind).collect()
}

fn channel(host: &DaemonHarness, name: &str) -> Value {
    let status = host.status();
    let channels = status["channels"].as_array().cloned().unwrap_or_default();
    channels.into_iter().find(|it| it["name"] == name).unwrap_or_default()
}

/// Milliseconds since 1970 of an RFC 3339 time.
fn ms(at: &Value) -> u64 {
    let at: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
    u64::try_from(at.as_millisecond()).unwrap()
}

#[test]
fn a_rollback_is_told_signed_recorded_and_acknowledged() {
    let receiver = Receiver::start(ACCEPT);
    let secrets = tempfile::tempdir().unwrap();
    let key = secret_file(secrets.path(), &format!("{SECRET}\n"));
    let told = secrets.path().join("told");
    let program = format!("cat >>{}", told.display());
    let channels = webhook("hook", &receiver.url(), &format!("secret_file = {key:?}"))
        + &format!(
            "\n[notify.program]\ntype = \"command\"\ncommand = [\"/bin/sh\", \"-c\", {program:?}]\n"
        );
    let host = with_channels(&channels);
    roll_back(&host);
    wait_until("both notices", || receiver.received().len() >= 2);
    let received = receiver.received();
    assert_eq!(kinds(&received), ["warn", "resolved"]);
    for request in &received {
        let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
        let signed = [format!("{id}.{time}.").as_bytes(), &request.body].concat();
        let signature = request.headers["webhook-signature"].strip_prefix("v1,").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, &signed, &STANDARD.decode(signature).unwrap()).unwrap();
        assert_eq!(request.json()["id"].as_str(), Some(id.as_str()));
        assert_eq!(request.json()["specversion"], "1.0");
        assert_eq!(request.notice()["url"], "https://status.example.org/service/weather");
        assert_eq!(request.path, "/hook");
    }
    let text = received[1].notice()["text"].as_str().unwrap().to_owned();
    assert!(text.starts_with("weather: v2 rolled back to v1 in "), "{text}");
    assert!(text.contains("requests failed"), "{text}");
    let timeline = || host.run_cli(&["timeline", SERVICE, "--json"]).expect_code(0).json_lines();
    let detected = timeline().into_iter().find(|it| it["kind"] == "detected").unwrap();
    println!("from verdict to wire: {} ms", received[0].at_ms - ms(&detected["at"]));
    let notified = |channel: &str| {
        let entries = timeline().into_iter().filter(|it| it["kind"] == "notified");
        entries.filter(|it| it["data"]["channel"] == channel).count()
    };
    wait_until("the timeline", || notified("hook") == 2 && notified("program") == 2);
    assert_eq!(fs::read_to_string(told).unwrap().lines().count(), 2);
    host.run_cli(&["ack", SERVICE]).expect_code(0);
    wait_until("the acknowledgement", || timeline().iter().any(|it| it["kind"] == "acknowledged"));
    wait_until("it is told", || receiver.received().len() == 3);
    assert_eq!(receiver.received()[2].notice()["acknowledged"], true);
    let document = host.run_cli(&["postmortem", SERVICE, "--json"]).expect_code(0).out;
    assert!(document.contains("channel hook accepted a notification"), "{document}");
    assert_eq!(channel(&host, "hook")["delivered"], 3);
    for text in [host.log(), host.status().to_string(), document] {
        assert!(!text.contains(SECRET));
    }
}

#[test]
fn a_channel_that_hangs_delays_no_other_and_no_rollback() {
    let (hangs, works) = (Receiver::start(|_| Answer::Hang), Receiver::start(ACCEPT));
    let channels =
        webhook("hangs", &hangs.url(), "timeout = \"60s\"") + &webhook("works", &works.url(), "");
    let mut host = with_channels(&channels);
    roll_back(&host);
    wait_until("both notices", || works.received().len() == 2);
    assert_eq!(hangs.received().len(), 1, "it waits for the first");
    assert_eq!(channel(&host, "hangs")["waiting"], 2);
    // What waits survives a kill, and is sent under the same id.
    host.kill();
    host.start();
    wait_until("it is sent again", || hangs.received().len() == 2);
    let ids: Vec<_> = hangs.received().iter().map(|it| it.notice()["id"].clone()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(works.received().len(), 2, "what was told is not told again");
}

#[test]
fn a_receiver_that_fails_gets_the_notice_again() {
    let busy = Receiver::start(|count| match count {
        0 => Answer::Status("429 Too Many Requests", "Retry-After: 1\r\n", 0),
        1 => Answer::Status("500 Internal Server Error", "", 10 * 1024 * 1024),
        _ => Answer::Status("200 OK", "", 10 * 1024 * 1024),
    });
    let host = with_channels(&webhook("busy", &busy.url(), "kinds = [\"info\"]"));
    // Two notices of the first deploy, of which the first fails twice.
    wait_until("both notices", || busy.received().len() == 4);
    let received = busy.received();
    let ids: Vec<_> = received.iter().map(|it| it.notice()["id"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert!(received[1].at_ms - received[0].at_ms >= 1_000, "Retry-After");
    wait_until("it counts", || channel(&host, "busy")["delivered"] == 2);
    assert_eq!(channel(&host, "busy")["failed"], 2);
}

/// The answer of `notify test` for one channel.
fn test_answer(host: &DaemonHarness, name: &str, code: i32) -> String {
    host.run_cli(&["notify", "test", name]).expect_code(code).out
}

#[test]
fn a_test_tells_what_each_receiver_answered() {
    let good = Receiver::start(ACCEPT);
    let moved = Receiver::start(|_| Answer::Status("302 Found", "Location: /else\r\n", 0));
    let gone = Receiver::start(|_| Answer::Status("404 Not Found", "", 3));
    let huge = Receiver::start(|_| Answer::Status("503 Service Unavailable", "", 10 << 20));
    let slow = Receiver::start(|_| Answer::Hang);
    let closed = crate::support::free_port();
    let channels = [
        webhook("good", &good.url(), "format = \"binary\""),
        webhook("moved", &moved.url(), ""),
        webhook("gone", &gone.url(), ""),
        webhook("huge", &huge.url(), ""),
        webhook("slow", &slow.url(), "timeout = \"1s\""),
        webhook("closed", &format!("http://127.0.0.1:{closed}/"), ""),
        webhook("nowhere", "http://nowhere.invalid/", ""),
        webhook("keyless", &good.url(), "secret_file = \"/nonexistent/key\""),
    ];
    let host = with_channels(&channels.concat());
    for (name, answer) in [
        ("moved", "redirects are not followed"),
        ("gone", "404 Not Found: xxx"),
        ("huge", "503 Service Unavailable: xxx"),
        ("slow", "no answer in time"),
        ("closed", "refused"),
        ("nowhere", "failed to lookup address"),
        ("keyless", "/nonexistent/key: No such file"),
    ] {
        let out = test_answer(&host, name, 1);
        assert!(out.contains(&format!("{name}: FAILED: ")) && out.contains(answer), "{out}");
        assert!(out.len() < 400, "{out}");
    }
    assert!(test_answer(&host, "good", 0).contains("good: accepted: 202 Accepted"));
    let received = good.received().pop().unwrap();
    assert_eq!(received.headers["ce-type"], "dev.rollbackd.notice.info");
    assert_eq!(received.json()["test"], true);
    host.run_cli(&["notify", "test", "nosuch"]).expect_code(7);
    host.run_cli(&["notify", "test"])
        .expect_code(1)
        .expect_text(&["good: accepted", "gone: FAILED"]);
    host.run_cli(&["check"]).expect_code(0);
}

#[test]
fn a_certificate_is_checked_with_the_authorities_of_the_system() {
    let right = Receiver::start_tls(ACCEPT, "localhost");
    let wrong = Receiver::start_tls(ACCEPT, "elsewhere.example");
    let url = |it: &Receiver| format!("https://localhost:{}/hook", it.port);
    let mut host = DaemonHarness::new("");
    configure(&host, &(webhook("right", &url(&right), "") + &webhook("wrong", &url(&wrong), "")));
    let authority = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/ca.pem");
    host.set_environment("SSL_CERT_FILE", authority.to_str().unwrap());
    host.start();
    assert!(test_answer(&host, "right", 0).contains("accepted"));
    let out = test_answer(&host, "wrong", 1);
    assert!(out.contains("certificate") && out.contains("not valid for"), "{out}");
    assert!(wrong.received().is_empty());
}

#[test]
fn a_channel_that_fails_is_seen_and_told_by_the_others() {
    let refuses = Receiver::start(|_| Answer::Status("401 Unauthorized", "", 0));
    let works = Receiver::start(ACCEPT);
    let secrets = tempfile::tempdir().unwrap();
    let key = secret_file(secrets.path(), SECRET);
    let channels = webhook("refuses", &refuses.url(), "kinds = [\"info\"]")
        + &webhook("works", &works.url(), &format!("secret_file = {key:?}"));
    let host = with_channels(&channels);
    wait_until("the alarm", || works.received().len() == 1);
    let notice = works.received()[0].notice();
    assert_eq!(notice["kind"], "warn");
    assert!(notice["text"].as_str().unwrap().contains("channel refuses fails: 401 Unauthorized"));
    host.run_cli(&["status"]).expect_code(0).expect_text(&["channel refuses (webhook) fails"]);
    let text = "notification channel refuses fails";
    wait_until(text, || host.log().contains(text));
    // A secret that others can read is not used, and `check` says so.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(test_answer(&host, "works", 1).contains("can be read by other users"));
    let checked = host.run_cli(&["check"]).expect_code(0);
    assert!(checked.err.contains("[notify.works] cannot use its secret"), "{}", checked.err);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(test_answer(&host, "works", 0).contains("accepted"));
    // The first page must not be the first to show that a secret is missing.
    configure(&host, &webhook("keyless", &works.url(), "secret_file = \"/nonexistent/key\""));
    host.reload();
    wait_until("the reload", || !channel(&host, "keyless")["failing_s"].is_null());
    host.run_cli(&["status"]).expect_text(&["channel keyless (webhook) fails", "No such file"]);
    // A reload replaces the channels.
    configure(&host, &webhook("other", &works.url(), ""));
    host.reload();
    wait_until("the reload", || channel(&host, "other")["name"] == "other");
    assert_eq!(channel(&host, "refuses"), Value::Null);
}

/// As many events and kills as in CI; `NOTIFY_EVENTS=10000 NOTIFY_KILLS=200` for more:
/// `NOTIFY_EVENTS=10000 NOTIFY_KILLS=200 cargo test --test daemon notify::no_notice_is_lost -- --nocapture`
#[test]
fn no_notice_is_lost_by_kills() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
    };
    let (events, kills) = (number("NOTIFY_EVENTS", 600), number("NOTIFY_KILLS", 6));
    let receiver = Receiver::start(ACCEPT);
    let mut host = DaemonHarness::new("");
    configure(&host, &webhook("hook", &receiver.url(), ""));
    fs::create_dir_all(host.state()).unwrap();
    fs::set_permissions(host.state(), fs::Permissions::from_mode(0o700)).unwrap();
    let now = Moment(crate::support::epoch_ms());
    let (mut outbox, damage) = Outbox::open(&host.state(), now);
    assert_eq!(damage, None);
    for event in 0..events {
        let notice = Notice::new(NoticeKind::Warn, SERVICE, ReleaseNumber(7), &event.to_string())
            .text("a test", "weather: a test")
            .at("2026-11-27T10:00:00Z", now);
        outbox.queue(&notice, vec!["hook".to_owned()]);
    }
    drop(outbox);
    let mut rng = Rng(7);
    for _ in 0..kills {
        host.start();
        // The fault comes at a random moment.
        sleep(Duration::from_millis(rng.below(events / kills * 2)));
        host.kill();
    }
    host.start();
    wait_for(Duration::from_secs(600), "all notices", || {
        (channel(&host, "hook")["waiting"] == 0).then_some(())
    });
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for request in receiver.received() {
        let id = request.headers["webhook-id"].clone();
        assert_eq!(request.notice()["id"], id);
        *counts.entry(id).or_default() += 1;
    }
    assert_eq!(counts.len() as u64, events, "each at least once");
    let duplicates: u64 = counts.values().map(|it| it - 1).sum();
    println!("{events} notices, {kills} kills, {duplicates} duplicates");
    assert!(duplicates <= kills, "at most the one that was on its way: {duplicates}");
}

#[test]
fn a_page_that_is_in_no_timeline_reaches_the_channels_once() {
    let receiver = Receiver::start(ACCEPT);
    let mut host = with_channels(&webhook("hook", &receiver.url(), ""));
    host.stop();
    // Sessions that cannot be read are set aside, which the log says with page=true.
    let sessions = host.state().join(SERVICE).join("sessions.jsonl");
    let _ = fs::remove_file(&sessions);
    fs::create_dir(&sessions).unwrap();
    host.start();
    let pages = || {
        let received = receiver.received();
        let text = |it: &Received| it.notice()["text"].as_str().unwrap().to_owned();
        let texts = received.iter().filter(|it| it.notice()["kind"] == "page").map(text);
        texts.collect::<Vec<_>>()
    };
    wait_until("the page", || !pages().is_empty());
    roll_back(&host);
    wait_until("the notices of the rollback", || receiver.received().len() >= 3);
    let pages = pages();
    assert!(pages.len() == 1 && pages[0].contains("sessions.jsonl"), "{pages:?}");
    assert!(pages[0].ends_with("A person is needed now."), "{pages:?}");
}
